# SPDX-License-Identifier: Apache-2.0
"""The loop: alerts first, bounded batches of activity, timers, calls from other threads, signals."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest

from ringfence.daemon.loop import ALERTS, BATCH, CALLS_MAX, Loop
from ringfence.faults import handler_errors

WOKEN = 30.0  # seconds: half of what the loop waits where nothing wakes it


class FakeRing:
    """Records in a list; readable, as a ring is, while there are some."""

    def __init__(self) -> None:
        self.records: list[int] = []
        self.kept = False  # read and not given back
        self._fd = os.eventfd(0, os.EFD_NONBLOCK)

    def add(self, *records: int) -> None:
        """New records, and the wake-up that the kernel sends with them."""
        self.records += records
        os.eventfd_write(self._fd, 1)

    def fileno(self) -> int:
        return self._fd

    def read(self, max_records: int, *, keep: bool = False) -> list[int]:
        taken, self.records = self.records[:max_records], self.records[max_records:]
        if not self.records:
            try:
                os.eventfd_read(self._fd)
            except BlockingIOError:
                pass
        self.kept = self.kept or (keep and bool(taken))
        return taken

    def commit(self) -> None:
        self.kept = False


class Bench:
    """A loop over two fake rings, and the records that its handler got, in order."""

    def __init__(self) -> None:
        self.alerts, self.activity = FakeRing(), FakeRing()
        self.seen: list[tuple[str, list[Any]]] = []
        self.loop = Loop(cast(Any, self.alerts), cast(Any, self.activity))

    def turn(self, timeout: float = 0.0) -> None:
        """One turn of the loop."""
        self.loop.turn(self.take, timeout)

    def take(self, alerts: Sequence[Any], activity: Sequence[Any]) -> None:
        """Write down what came."""
        self.seen += [
            (kind, list(some)) for kind, some in (("alerts", alerts), ("activity", activity)) if some
        ]


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A loop that is closed afterwards."""
    made = Bench()
    yield made
    made.loop.close()


def test_alerts_bring_the_activity_before_them_along(bench: Bench) -> None:
    """The handler can put the exec before the verdict on it; all alerts are handled in one turn."""
    bench.activity.add(1, 2)
    bench.alerts.add(*range(ALERTS + 1))
    bench.turn()
    assert [(kind, len(some)) for kind, some in bench.seen] == [
        ("alerts", ALERTS),
        ("activity", 2),
        ("alerts", 1),
    ]


def test_alerts_stay_in_their_ring_until_they_are_reported() -> None:
    """An agent that is killed between leaves them to the next."""
    ring, kept = FakeRing(), list[bool]()
    loop = Loop(cast(Any, ring), cast(Any, FakeRing()), lambda: kept.append(ring.kept))
    ring.add(1)
    loop.turn(lambda _a, _b: kept.append(ring.kept))
    loop.close()
    assert kept == [True, True]
    assert not ring.kept


def test_an_alert_is_taken_while_activity_sleeps_between_two_looks(bench: Bench) -> None:
    """The pause after a batch that emptied the ring is not a pause for alerts."""
    bench.activity.add(1)
    bench.turn(0.05)
    bench.alerts.add(2)
    bench.turn(0.0)
    assert bench.seen[-1] == ("alerts", [2])


def test_a_flood_of_activity_never_delays_an_alert_by_more_than_a_batch(bench: Bench) -> None:
    """With a full ring of activity, an alert that comes meanwhile is in the next turn, before more
    activity."""
    bench.activity.add(*range(10 * BATCH))
    bench.turn()
    bench.alerts.add(1)
    bench.turn()
    assert [(kind, len(records)) for kind, records in bench.seen] == [
        ("activity", BATCH),
        ("alerts", 1),
        ("activity", BATCH),
    ]


def test_everything_of_activity_is_read_in_the_end(bench: Bench) -> None:
    """Batches follow until the ring is empty, and it wakes the loop again afterwards."""
    bench.activity.add(*range(3 * BATCH + 5))
    for _ in range(8):
        bench.turn(0.05)
    bench.activity.add(7)
    for _ in range(3):
        bench.turn(0.05)
    assert sum(len(records) for _, records in bench.seen) == 3 * BATCH + 6
    assert bench.seen[-1] == ("activity", [7])


def test_another_thread_can_queue_a_call(bench: Bench) -> None:
    """`call` wakes a loop that waits."""
    began = time.monotonic()
    threading.Timer(0.05, lambda: bench.loop.call(bench.loop.stop)).start()
    bench.loop.run(bench.take)
    assert time.monotonic() - began < WOKEN, "the loop was not woken: it looked after its 60 s"


def test_ask_brings_back_an_answer_or_an_error(bench: Bench) -> None:
    """`ask` runs in the loop and hands its result to the thread that asked."""
    answers: list[object] = []

    def asker() -> None:
        answers.append(bench.loop.ask(lambda: threading.current_thread() is threading.main_thread()))
        with pytest.raises(ZeroDivisionError):
            bench.loop.ask(lambda: 1 // 0)
        bench.loop.call(bench.loop.stop)

    thread = threading.Thread(target=asker)
    thread.start()
    bench.loop.run(bench.take)
    thread.join()
    assert answers == [True]


def test_a_timer_runs_repeatedly(bench: Bench) -> None:
    """Until the loop stops."""
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(1)
        if len(ticks) == 3:
            bench.loop.stop()

    bench.loop.every(0.01, tick)
    bench.loop.run(bench.take)
    assert len(ticks) == 3


def test_later_runs_once(bench: Bench) -> None:
    """And in its time among the timers."""
    came: list[str] = []

    def tick() -> None:
        came.append("tick")
        if len(came) == 4:
            bench.loop.stop()

    bench.loop.every(0.02, tick)
    bench.loop.later(0.03, lambda: came.append("later"))
    bench.loop.run(bench.take)
    assert sorted(came) == ["later", "tick", "tick", "tick"]


def test_a_signal_is_handled_in_the_loop(bench: Bench) -> None:
    """SIGHUP wakes the loop and runs its work there."""
    began = time.monotonic()
    bench.loop.on_signal(signal.SIGHUP, bench.loop.stop)
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGHUP)).start()
    bench.loop.run(bench.take)
    assert time.monotonic() - began < WOKEN, "the loop was not woken: it looked after its 60 s"


def test_drain_handles_the_remaining_records(bench: Bench) -> None:
    """At the end both rings are emptied, alerts first."""
    bench.activity.add(*range(BATCH + 1))
    bench.alerts.add(1)
    bench.loop.drain(bench.take)
    assert [(kind, len(records)) for kind, records in bench.seen] == [
        ("alerts", 1),
        ("activity", BATCH),
        ("activity", 1),
    ]


def test_an_exception_is_counted_and_the_loop_goes_on(bench: Bench) -> None:
    """A handler of records, a call, a timer: each costs itself alone, and what was read is given
    back.
    """

    def bug() -> None:
        raise ZeroDivisionError("a bug")

    def refuse(alerts: Sequence[bytes], activity: Sequence[bytes]) -> None:
        bug()

    before, done = handler_errors.copy(), list[str]()
    bench.alerts.add(1)
    for work in (bug, lambda: done.append("call")):
        bench.loop.call(work)
    bench.loop.every(0.0001, bug)
    bench.loop.later(0.0, lambda: done.append("timer"))
    for _ in range(4):
        bench.loop.turn(refuse, 0.01)
    assert handler_errors["timer"] > before["timer"] + 1
    assert done == ["call", "timer"]
    assert handler_errors["call"] - before["call"] == 1
    assert handler_errors["records"] - before["records"] == 1
    assert not bench.alerts.kept


def test_calls_that_are_never_run_are_bounded(bench: Bench) -> None:
    """Calls beyond the maximum are dropped and counted, and the caller gets False or an exception."""
    before = handler_errors["call_dropped"]
    for _ in range(CALLS_MAX + 5):
        bench.loop.call(lambda: None)
    used, limit = (family.samples[0].value for family in bench.loop.samples())
    assert used == limit == CALLS_MAX
    with pytest.raises(TimeoutError, match="too many calls"):
        bench.loop.ask(lambda: 1)
    assert handler_errors["call_dropped"] - before == 6


def test_a_call_that_queues_another_does_not_block_the_loop(bench: Bench) -> None:
    """The next one is of the next turn: timers and rings are served between."""
    count = list[int]()

    def again() -> None:
        count.append(1)
        bench.loop.call(again)

    bench.loop.call(again)
    bench.turn()
    assert len(count) == 1


def test_an_idle_loop_sleeps(bench: Bench) -> None:
    """Without work it waits for the kernel; with a call that is left over it does not."""
    assert bench.loop._timeout() > 50
    bench.loop.call(lambda: None)
    assert bench.loop._timeout() == 0.0
    bench.turn()
    assert bench.loop._timeout() > 50
