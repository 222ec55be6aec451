# SPDX-License-Identifier: Apache-2.0
"""Calls that name a path of the agent: the verdict is given back once the effect of the call is
known.
"""

from __future__ import annotations

from ringfence.abi import EventKind, Tamper
from ringfence.daemon.verdicts.tamper import CALL_SECONDS, Confirmed, Look, TamperConfirmation, Verdict
from ringfence.events import Event
from ringfence.response.detectors import finding
from ringfence.wire import make

MAYBE = make(EventKind.AGENT_TAMPER, what=Tamper.FILE | Tamper.MAYBE, time_ns=5)
CERTAIN = make(EventKind.AGENT_TAMPER, what=int(Tamper.FILE), time_ns=5)
FOUND = finding("agent-tampered", None, {"what": "pin"})


class World:
    """`lost_ns`: when a resource of the agent was last modified. `looks`: how often that was
    checked.
    """

    def __init__(self) -> None:
        self.now, self.lost_ns, self.looks = 100.0, 0, 0
        self.tamper = TamperConfirmation(self._look, clock=lambda: self.now)

    def _look(self) -> Look:
        self.looks += 1
        return Look([FOUND], self.lost_ns)

    def defer(self, event: Event) -> bool:
        return self.tamper.defer(event, None)


def test_a_modification_meanwhile_makes_the_verdict_certain() -> None:
    """Otherwise it stays uncertain. A verdict that is certain is not deferred."""
    for lost_ns, event in ((4, MAYBE), (5, CERTAIN)):
        world = World()
        assert world.defer(MAYBE)
        world.lost_ns = lost_ns
        assert world.tamper.due() == Confirmed()
        world.now += CALL_SECONDS
        assert world.tamper.due() == Confirmed([FOUND], [Verdict(MAYBE, event, None)])
        assert not world.defer(CERTAIN)


def test_one_look_is_enough_for_all_calls_that_have_ended() -> None:
    """A later call is judged by a later look."""
    world = World()
    for _ in range(3):
        assert world.defer(MAYBE)
    world.now += CALL_SECONDS / 2
    assert world.defer(MAYBE)
    world.now += CALL_SECONDS / 2
    assert len(world.tamper.due().verdicts) == 3
    assert world.looks == 1
    world.now += CALL_SECONDS / 2
    assert len(world.tamper.due().verdicts) == 1


def test_at_the_end_no_verdict_is_left() -> None:
    """Deferred verdicts are given back at once, each once; later ones are not deferred."""
    world = World()
    assert world.defer(MAYBE)
    assert world.tamper.due(last=True).verdicts == [Verdict(MAYBE, MAYBE, None)]
    assert not world.defer(MAYBE)
    world.now += 1
    assert world.tamper.due() == Confirmed()


def test_without_enforcement_no_verdict_is_deferred() -> None:
    """Then the kernel denied nothing, and no process is killed."""
    made = TamperConfirmation(lambda: Look((), 0), enabled=False)
    assert not made.defer(MAYBE, None)


def test_a_condemned_container_is_handled_at_once() -> None:
    """Whatever the self-defence is set to; the verdict is not deferred."""
    calls: list[str] = []
    for enabled in (True, False):
        tamper = TamperConfirmation(
            lambda: Look([], 0), condemned=lambda: calls.append("condemned"), enabled=enabled
        )
        assert not tamper.defer(make(EventKind.AGENT_TAMPER, what=int(Tamper.CONDEMNED)), None)
        assert not tamper.defer(make(EventKind.SYS_UNSHARE), None)
    assert calls == ["condemned", "condemned"]
