# SPDX-License-Identifier: Apache-2.0
"""The self-defence, put together: the table of guarded objects, the alerts for its verdicts, and the
watchdog."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ringfence.abi import Tamper
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.registry import Registry
from ringfence.daemon.defence.peer_check import PeerCheck
from ringfence.daemon.defence.protected_objects import ProtectedObjects
from ringfence.daemon.defence.watchdog import Watchdog
from ringfence.daemon.delivery.alert_counters import make_builtin_series
from ringfence.daemon.succession.continuity import Continuity
from ringfence.daemon.verdicts.pipeline import VerdictPipeline
from ringfence.events import Event, TamperEvent
from ringfence.export.stats import Stats
from ringfence.policy.install import Generations
from ringfence.response.builtin import BuiltinRules
from ringfence.response.detectors import finding

__all__ = ["Defence", "TamperConfirmation"]

_CALL_SECONDS = 0.05  # in which a call that was seen to begin has ended
Give = Callable[[Event], None]


class TamperConfirmation:
    """Verdicts on calls that name a path as ours are named, until it is known what the call did. Loop only.

    `found_since(time_ns)`: is something of ours not as it was left, since then? `later` does something in
    the loop after so many seconds.
    """

    def __init__(
        self, found_since: Callable[[int], bool], later: Callable[[float, Callable[[], None]], None]
    ) -> None:
        self._found_since, self._later = found_since, later
        self._waiting: dict[int, tuple[TamperEvent, Give]] = {}
        self._number, self._over = 0, False

    def defer(self, event: Event, give: Give) -> bool:
        """Whether `give` will be called with it when the call has ended."""
        if self._over or not isinstance(event, TamperEvent) or not event.what & Tamper.MAYBE:
            return False
        number = self._number = self._number + 1
        self._waiting[number] = event, give
        self._later(_CALL_SECONDS, lambda: self._settle(number))
        return True

    def finish(self) -> None:
        """At the end: settle all now, and take no more."""
        self._over = True
        for number in list(self._waiting):
            self._settle(number)

    def _settle(self, number: int) -> None:
        event, give = self._waiting.pop(number, (None, None))
        if event is not None and give is not None:
            sure = self._found_since(event.time_ns)
            give(event._replace(what=event.what & ~Tamper.MAYBE) if sure else event)


class Defence:
    """Call in the order of a start: `begin` before anything is attached, `attached` after; then `tick`."""

    def __init__(
        self,
        config: Config,
        kernel: Kernel,
        continuity: Continuity,
        generations: Generations,
        registry: Registry,
        pipeline: VerdictPipeline,
        stats: Stats,
        tell: Callable[[Event], None],
        reattach: Callable[[], None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`tell` takes verdicts of ours from any thread; `reattach` has links made again that are gone;
        `later` does something in the loop after so many seconds."""
        self._continuity, self._pipeline = continuity, pipeline
        self._off = "agent-tampered" in config.detectors_off
        self._guard = ProtectedObjects(config, kernel)
        self.peer_check = PeerCheck(config, kernel, tell)
        self.watchdog = Watchdog(kernel, generations, registry, self._tampered, reattach)
        generations.made = self._guard.map_made
        rules = BuiltinRules(config.defence, kernel.guarding)
        pipeline.builtin = rules.of
        self.tamper = TamperConfirmation(self.watchdog.found_since, later)
        if config.defence == "deny":
            pipeline.postpone = self.tamper.defer
        if kernel.guarding:
            make_builtin_series(stats, rules.all)

    def begin(self) -> None:
        """Guard what there is by now."""
        self._guard.begin()
        self.watchdog.begin()

    def attached(self) -> None:
        """Guard the links and the pins, and watch what the next agent needs."""
        self._guard.attached(self._continuity.base)
        self.watchdog.files = self._continuity.files

    def tick(self) -> None:
        """One round."""
        self.watchdog.tick()
        self._guard.refresh()

    def _tampered(self, what: str, details: Mapping[str, object]) -> None:
        if not self._off:
            self._pipeline.finding(finding("agent-tampered", None, details))
