# SPDX-License-Identifier: Apache-2.0
"""Defers verdicts on calls that name a path of the agent, until the effect of the call is known.

Where only system calls are seen, a call is judged by the path that it names when it begins.
Whether it really changed a file of the agent is visible only after it has ended.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ringfence.abi import Tamper
from ringfence.containers.model import Container
from ringfence.events import Event, TamperEvent
from ringfence.response.detectors import Finding

__all__ = ["CALL_SECONDS", "Confirmed", "Look", "TamperConfirmation", "Verdict"]

#: seconds in which a call that was seen to begin has ended
CALL_SECONDS = 0.05


class Look(NamedTuple):
    """One look at the agent's resources: what was found modified, and when a pin or file last was.

    `lost_ns` is of CLOCK_BOOTTIME; 0: never.
    """

    findings: Sequence[Finding]
    lost_ns: int


class Verdict(NamedTuple):
    """A verdict of the kernel: the event that was `seen`, and the `event` that it turned out to
    be.
    """

    seen: Event
    event: Event
    container: Container | None


class Confirmed(NamedTuple):
    """Deferred verdicts whose call has ended, and the findings of the look at the agent's
    resources.
    """

    findings: Sequence[Finding] = ()
    verdicts: Sequence[Verdict] = ()


class _Deferred(NamedTuple):
    due: float  # monotonic time
    event: TamperEvent
    container: Container | None


class TamperConfirmation:
    """Used by the loop only. `look` checks the agent's resources now; `condemned` is called when a
    container was condemned.
    """

    def __init__(
        self,
        look: Callable[[], Look],
        *,
        condemned: Callable[[], None] = lambda: None,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._enabled, self._clock = look, enabled, clock
        self._condemned = condemned
        self._deferred: deque[_Deferred] = deque()

    def defer(self, event: Event, container: Container | None) -> bool:
        """Returns True if the verdict must wait; `due` gives it back CALL_SECONDS later."""
        if isinstance(event, TamperEvent) and event.what == Tamper.CONDEMNED:
            self._condemned()
        if not self._enabled or not isinstance(event, TamperEvent) or not event.what & Tamper.MAYBE:
            return False
        self._deferred.append(_Deferred(self._clock() + CALL_SECONDS, event, container))
        return True

    def due(self, *, last: bool = False) -> Confirmed:
        """The verdicts whose call has ended. With `last`: all of them, and no verdict is deferred
        any more.
        """
        self._enabled = self._enabled and not last
        now = self._clock()
        ready: list[_Deferred] = []
        while self._deferred and (last or self._deferred[0].due <= now):
            ready.append(self._deferred.popleft())
        if not ready:
            return Confirmed()
        findings, lost_ns = self._look()
        return Confirmed(findings, [_confirmed(one, lost_ns) for one in ready])


def _confirmed(one: _Deferred, lost_ns: int) -> Verdict:
    certain = lost_ns >= one.event.time_ns
    event = one.event._replace(what=one.event.what & ~Tamper.MAYBE) if certain else one.event
    return Verdict(one.event, event, one.container)
