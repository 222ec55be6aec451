# SPDX-License-Identifier: Apache-2.0
"""Calls that name a path as one of the agent's is named: told once it is known what they did."""

from __future__ import annotations

from collections.abc import Callable

from ringfence.abi import EventKind, Tamper
from ringfence.daemon.defence.setup import TamperConfirmation
from ringfence.events import Event
from ringfence.wire import make

MAYBE = make(EventKind.AGENT_TAMPER, what=Tamper.FILE | Tamper.MAYBE, time_ns=5)


class World:
    """Calls end when `end` is called. `harm`: a resource of the agent was changed."""

    def __init__(self) -> None:
        self.harm, self.later, self.given = False, list[Callable[[], None]](), list[Event]()
        self.tamper = TamperConfirmation(
            lambda since: self.harm, lambda seconds, work: self.later.append(work)
        )

    def take(self, event: Event) -> bool:
        return self.tamper.defer(event, self.given.append)

    def end(self) -> None:
        for work in self.later:
            work()


def test_what_was_changed_meanwhile_makes_it_certain() -> None:
    """Else it stays a maybe. What is no maybe is not kept."""
    for harm, what in ((False, Tamper.FILE | Tamper.MAYBE), (True, int(Tamper.FILE))):
        world = World()
        assert world.take(MAYBE)
        world.harm = harm
        assert world.given == []
        world.end()
        assert world.given == [make(EventKind.AGENT_TAMPER, what=what, time_ns=5)]
        assert not world.take(make(EventKind.AGENT_TAMPER, what=Tamper.FILE))


def test_the_agents_end_leaves_none_untold() -> None:
    """Who is waited for is told at once, and once; what comes after that is not kept."""
    world = World()
    assert world.take(MAYBE)
    world.tamper.finish()
    assert world.given == [MAYBE]
    assert not world.take(MAYBE)
    world.end()
    assert world.given == [MAYBE]
