# SPDX-License-Identifier: Apache-2.0
"""What agents before this one left unread: each verdict is told once, however many of them recorded it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast
from unittest import mock

from ringfence.abi import EventKind
from ringfence.containers.registry import Registry
from ringfence.daemon.succession.takeover import Takeover
from ringfence.events import Event
from ringfence.wire import encode, make
from tests.unit.containers.fakes import FakeSlots

MS = 1_000_000


class FakeRing:
    """Records that are read once."""

    def __init__(self, *events: Event) -> None:
        self.records = [encode(event) for event in events]

    def read(self, most: int, *, keep: bool = False) -> list[bytes]:
        taken, self.records = self.records[:most], self.records[most:]
        return taken

    def commit(self) -> None:
        """Nothing to give back."""

    def close(self) -> None:
        """Nothing to unmap."""


def verdict(tid: int, at: int) -> Event:
    """A call that was refused, `at` milliseconds after boot."""
    return make(EventKind.SYS_UNSHARE, action=1, tid=tid, pid=tid, time_ns=at * MS, container=5)


def taking(tmp_path: Path, *rings: FakeRing) -> tuple[Takeover, list[Event]]:
    """A take-over of these rings, and what it tells."""
    told: list[Event] = []
    generations = cast(Any, mock.Mock(rule=lambda *_: None))
    made = Takeover(generations, Registry(FakeSlots()), lambda event, container: told.append(event))
    made.begin(tmp_path, None)
    made._rings = [("alerts", cast(Any, ring)) for ring in rings]
    return made, told


def test_what_several_agents_recorded_is_told_once(tmp_path: Path) -> None:
    """Three sets of programs saw two calls of one task and one of another, microseconds apart."""
    calls = [verdict(7, 10), verdict(7, 30), verdict(8, 30)]
    late = [event._replace(time_ns=event.time_ns + 900) for event in calls]
    made, told = taking(tmp_path, FakeRing(*calls), FakeRing(*late), FakeRing(*late[1:]))
    made.adopted()
    assert told == calls
    assert (made.counts["reported"], made.counts["duplicate"]) == (3, 5)


def test_the_same_call_again_and_again_is_told_each_time(tmp_path: Path) -> None:
    """One ring: nothing is taken for a duplicate."""
    made, told = taking(tmp_path, FakeRing(*[verdict(7, at) for at in range(100)]))
    made.adopted()
    assert len(told) == 100


def test_what_happened_after_we_began_waits_for_the_end(tmp_path: Path) -> None:
    """It may be in our own ring as well."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // MS + 1000
    made, told = taking(tmp_path, FakeRing(verdict(7, 10), verdict(7, now)), FakeRing(verdict(7, now)))
    made.adopted()
    assert [event.time_ns for event in told] == [10 * MS]
    made.witness(verdict(7, now))
    made.finish()
    assert (made.counts["reported"], made.counts["duplicate"]) == (1, 2)
