# SPDX-License-Identifier: Apache-2.0
"""The self-defence, put together: the table of guarded objects, the alerts for its verdicts, and the
watchdog."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ringfence.abi import Tamper
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.registry import Registry
from ringfence.daemon.alert_series import make_builtin_series
from ringfence.daemon.continuity import Continuity
from ringfence.daemon.desk import Desk
from ringfence.daemon.guard import Guard
from ringfence.daemon.peers import Peers
from ringfence.daemon.watchdog import Watchdog
from ringfence.events import Event, TamperEvent
from ringfence.export.stats import Stats
from ringfence.policy.install import Generations
from ringfence.response.builtin import BuiltinRules
from ringfence.response.detectors import finding

__all__ = ["Defence"]


_CALL_SECONDS = 0.05  # in which a call that was seen to begin has ended


class Defence:
    """Call in the order of a start: `begin` before anything is attached, `attached` after; then `tick`."""

    def __init__(
        self,
        config: Config,
        kernel: Kernel,
        continuity: Continuity,
        generations: Generations,
        registry: Registry,
        desk: Desk,
        stats: Stats,
        tell: Callable[[Event], None],
        reattach: Callable[[], None],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        """`tell` takes verdicts of ours from any thread; `reattach` has links made again that are gone;
        `later` does something in the loop after so many seconds."""
        self._later = later
        self._continuity, self._desk = continuity, desk
        self._off = "agent-tampered" in config.detectors_off
        self._guard = Guard(config, kernel)
        self.peers = Peers(config, kernel, tell)
        self.watchdog = Watchdog(kernel, generations, registry, self._tampered, reattach)
        generations.made = self._guard.map_made
        rules = BuiltinRules(config.defence, kernel.guarding)
        desk.builtin = rules.of
        if config.defence == "deny":
            desk.postpone = self._postpone
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

    def _postpone(self, event: Event, give: Callable[[Event], None]) -> bool:
        """A path that ends as one of ours does, as its call begins: when that has ended, and something of
        ours is not as it was left, it was ours."""
        if not isinstance(event, TamperEvent) or not event.what & Tamper.MAYBE:
            return False

        def look() -> None:
            found = self.watchdog.found_since(event.time_ns)
            give(event._replace(what=event.what & ~Tamper.MAYBE) if found else event)

        self._later(_CALL_SECONDS, look)
        return True

    def _tampered(self, what: str, details: Mapping[str, object]) -> None:
        if not self._off:
            self._desk.finding(finding("agent-tampered", None, details))
