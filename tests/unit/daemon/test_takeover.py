# SPDX-License-Identifier: Apache-2.0
"""Records that earlier agents left unread: each verdict is reported once, however many recorded
it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest

from ringfence.abi import Action, EventKind
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


def taking(tmp_path: Path, *rings: FakeRing) -> Takeover:
    """A takeover of these rings."""
    generations = cast(Any, mock.Mock(rule=lambda *_: None))
    made = Takeover(generations, Registry(FakeSlots()), lambda: None, lambda cgroup: "")
    made.begin(tmp_path, None)
    made._rings = [("alerts", cast(Any, ring)) for ring in rings]
    return made


def test_a_verdict_of_several_agents_is_reported_once(tmp_path: Path) -> None:
    """Three sets of programs saw two calls of one task and one of another, microseconds apart."""
    calls = [verdict(7, 10), verdict(7, 30), verdict(8, 30)]
    late = [event._replace(time_ns=event.time_ns + 900) for event in calls]
    made = taking(tmp_path, FakeRing(*calls), FakeRing(*late), FakeRing(*late[1:]))
    reported: list[Event] = []
    made.adopted(lambda event, container: reported.append(event))
    assert reported == calls
    assert (made.counts["reported"], made.counts["duplicate"]) == (3, 5)


def test_each_repetition_of_a_call_is_reported(tmp_path: Path) -> None:
    """One ring: nothing is taken for a duplicate."""
    made = taking(tmp_path, FakeRing(*[verdict(7, at) for at in range(100)]))
    reported: list[Event] = []
    made.adopted(lambda event, container: reported.append(event))
    assert len(reported) == 100


def test_verdicts_of_the_overlap_wait_for_the_end(tmp_path: Path) -> None:
    """It may be in our own ring as well."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // MS + 1000
    made = taking(tmp_path, FakeRing(verdict(7, 10), verdict(7, now)), FakeRing(verdict(7, now)))
    reported: list[Event] = []
    made.adopted(lambda event, container: reported.append(event))
    assert [event.time_ns for event in reported] == [10 * MS]
    made.witness(verdict(7, now))
    made.finish(lambda event, container: reported.append(event))
    assert (made.counts["reported"], made.counts["duplicate"]) == (1, 2)


def test_a_kill_that_the_new_agent_only_reported_is_reported(tmp_path: Path) -> None:
    """After a switch from enforce to audit the old programs killed: the record says so. A call that
    both stopped, or that only the new programs stopped, is reported once.
    """
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // MS + 1000
    seen = {"old": (Action.KILL, Action.KILL, Action.ALERT), "new": (Action.ALERT, Action.KILL, Action.KILL)}
    old, new = (
        [verdict(tid, now)._replace(action=action) for tid, action in enumerate(seen[agent], 7)]
        for agent in ("old", "new")
    )
    made = taking(tmp_path, FakeRing(*old))
    made.adopted(lambda event, container: None)
    for event in new:
        made.witness(event)
    reported: list[Event] = []
    made.finish(lambda event, container: reported.append(event))
    assert reported == old[:1]
    assert (made.counts["reported"], made.counts["duplicate"]) == (1, 2)


def test_the_old_programs_decide_until_they_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is some time after the removal of their pins; without pins nothing decides."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert not taking(tmp_path).deciding
    (tmp_path / "00000001-1" / "maps").mkdir(parents=True)
    made = taking(tmp_path)
    assert made.deciding
    made.release()
    assert made.deciding
    now[0] += 1.01
    assert not made.deciding


def test_pins_that_were_removed_are_forgotten(tmp_path: Path) -> None:
    """Of agents that were killed in a row, only the last one's are kept."""
    for number in range(1, 5):
        for part in ("maps", "links"):
            (tmp_path / f"{number:08}-1" / part).mkdir(parents=True)
    made = taking(tmp_path)
    made.thin_out()
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ["00000004-1"]
    assert [found.name for found in made.before] == left
