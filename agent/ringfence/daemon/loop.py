# SPDX-License-Identifier: Apache-2.0
"""The event loop: both rings, timers, signals, and calls from other threads. It knows nothing
about the parts that it drives.

Alerts come first. If there are any, they are read together with one bounded batch of activity. So
an alert waits for no more than that batch, and the handler sees an exec before the verdict on it.
Without alerts, the activity ring is read when it wakes the loop, and then every few milliseconds
while records keep coming: a wake-up per record would cost more than the record.

Alerts stay in their ring until they have been reported, so an agent that is killed meanwhile
leaves them to the next.

A handler that raises is counted and logged (ringfence.faults), and the loop goes on.
"""

from __future__ import annotations

import heapq
import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import TypeVar

from prometheus_client.core import Metric

from ringfence.bpf.ring import Ring
from ringfence.export import families
from ringfence.faults import ErrorCounter, handler_errors

__all__ = ["ALERTS", "BATCH", "CALLS_MAX", "Loop"]

BATCH = 256  # activity records a turn: under a millisecond of work
#: alerts per batch: in a large batch the handler sees which container makes many, and serves
#: others first
ALERTS = 4096
CALLS_MAX = 10_000  # queued calls: a blocked loop must not fill the memory
_ROUNDS = 4  # batches of alerts a turn, so that timers and signals are served in a flood, too
_ACTIVITY_PAUSE = 0.01  # seconds between two reads of an activity ring that was not empty
Records = Sequence[bytes]
#: gets alerts and activity, each in the order of its ring; one of them may be empty
Handler = Callable[[Records, Records], None]
T = TypeVar("T")


class Loop:
    """Runs on the thread that calls `run`. Other threads may use `call` and `ask` only."""

    def __init__(self, alerts: Ring, activity: Ring, settle: Callable[[], object] = lambda: None) -> None:
        """`settle` waits, for a bounded time, until the output has written the alerts."""
        self._alerts, self._activity, self._settle = alerts, activity, settle
        self._guards = {place: ErrorCounter(place) for place in ("records", "timer", "call", "signal")}
        self._timers: list[tuple[float, int, float, Callable[[], None]]] = []
        self._timer_count = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._watched: dict[int, Callable[[], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._stopping = False
        self._activity_due = 0.0  # monotonic time of the next read; 0: the ring wakes the loop
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signal_in, self._signal_out = socket.socketpair()
        for end in (self._signal_in, self._signal_out):
            end.setblocking(False)
        for fd in (alerts.fileno(), activity.fileno(), self._wake_fd, self._signal_in.fileno()):
            self._epoll.register(fd, select.EPOLLIN)

    def watch(self, fd: int, work: Callable[[], None]) -> None:
        """Run `work` whenever the descriptor is readable; it must read it."""
        self._watched[fd] = work
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching this descriptor. Call it before the descriptor is closed."""
        if self._watched.pop(fd, None):
            self._epoll.unregister(fd)

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        """Run `work` periodically, first after `seconds`."""
        self._timer_count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_count, seconds, work))

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Run `work` once, after `seconds`. In the loop only."""
        self._timer_count += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._timer_count, 0.0, work))

    def on_signal(self, number: int, work: Callable[[], None]) -> None:
        """Run `work` in the loop when this signal comes. From the main thread only."""
        self._signals[number] = work
        signal.set_wakeup_fd(self._signal_out.fileno(), warn_on_full_buffer=False)
        signal.signal(number, lambda _number, _frame: None)

    def call(self, work: Callable[[], None]) -> bool:
        """Run `work` in the loop soon. From any thread. If too many calls are waiting, it is
        dropped and counted: False.
        """
        if len(self._calls) >= CALLS_MAX:
            handler_errors["call_dropped"] += 1
            return False
        self._calls.append(work)
        os.eventfd_write(self._wake_fd, 1)
        return True

    def samples(self) -> Iterator[Metric]:
        """How many calls wait."""
        yield from families.capacity("calls", (len(self._calls), CALLS_MAX))

    def ask(self, question: Callable[[], T], timeout: float = 10.0) -> T:
        """Run `question` in the loop and return its result. From any other thread. Exceptions are
        raised here; TimeoutError if the loop does not run it in time.
        """
        answer: Future[T] = Future()

        def work() -> None:
            try:
                answer.set_result(question())
            except Exception as error:
                answer.set_exception(error)

        if not self.call(work):
            raise TimeoutError("too many calls wait for the loop")
        return answer.result(timeout)

    def stop(self) -> None:
        """Leave `run` after this turn."""
        self._stopping = True

    def run(self, handler: Handler) -> None:
        """Turn until `stop`; `handler` gets the records."""
        while not self._stopping:
            self.turn(handler, self._timeout())

    def turn(self, handler: Handler, timeout: float = 0.0) -> None:
        """Wait for at most `timeout` seconds, then handle records, calls and timers that are due."""
        for fd, _ in self._epoll.poll(timeout):
            if fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd == self._signal_in.fileno():
                self._read_signals()
            elif fd == self._activity.fileno():
                self._activity_due = time.monotonic()
                self._epoll.modify(fd, 0)
            elif work := self._watched.get(fd):
                self._calls.append(work)
        self._read_rings(handler)
        # A call that is queued meanwhile waits for the next turn: a call that queues another
        # cannot block.
        for _ in range(len(self._calls)):
            self._guards["call"](self._calls.popleft())
        self._run_timers()

    def drain(self, handler: Handler) -> None:
        """Handle the records that the rings still hold; at the end."""
        for _ in range(_ROUNDS):
            alerts, activity = self._alerts.read(ALERTS, keep=True), self._activity.read(BATCH)
            if not alerts and not activity:
                break
            self._on_records(handler, alerts, activity)

    def close(self) -> None:
        """Free the descriptors, and restore the signal handlers."""
        if self._signals:
            signal.set_wakeup_fd(-1)
        for number in self._signals:
            signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
        self._epoll.close()
        os.close(self._wake_fd)
        self._signal_in.close()
        self._signal_out.close()

    def _timeout(self) -> float:
        if self._calls:
            return 0.0
        due = [when for when in (self._activity_due, self._timers[0][0] if self._timers else 0.0) if when]
        # epoll rounds to milliseconds; rounding down would turn the loop for nothing.
        return max(0.0, min(due) - time.monotonic()) if due else 60.0

    def _on_records(self, handler: Handler, alerts: Records, activity: Records) -> None:
        guard = self._guards["records"]
        guard(lambda: handler(alerts, activity))
        if alerts:
            guard(self._settle)
            self._alerts.commit()

    def _read_rings(self, handler: Handler) -> None:
        now = time.monotonic()
        due = bool(self._activity_due) and self._activity_due <= now
        for _ in range(_ROUNDS):
            alerts = self._alerts.read(ALERTS, keep=True)
            if not alerts:
                break
            # Read after the alerts: an exec that came before a verdict is in here.
            activity = self._activity.read(BATCH)
            self._on_records(handler, alerts, activity)
            if activity:
                self._read_again(now, len(activity))
                due = False
        if due:
            activity = self._activity.read(BATCH)
            if activity:
                # Read after the activity: the creation of a container that is already active is in
                # here.
                self._on_records(handler, self._alerts.read(ALERTS, keep=True), activity)
            self._read_again(now, len(activity))

    def _read_again(self, now: float, taken: int) -> None:
        """Plan the next read: at once while the ring is full, a little later while it is not
        empty, else when the ring wakes the loop.
        """
        if taken:
            self._activity_due = now if taken == BATCH else now + _ACTIVITY_PAUSE
            self._epoll.modify(self._activity.fileno(), 0)
        else:
            self._activity_due = 0.0
            self._epoll.modify(self._activity.fileno(), select.EPOLLIN)

    def _read_signals(self) -> None:
        try:
            numbers = self._signal_in.recv(64)
        except BlockingIOError:
            return
        for number in numbers:
            if work := self._signals.get(number):
                self._guards["signal"](work)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            when, order, interval, work = heapq.heappop(self._timers)
            if interval:
                # A late timer runs once, not once for every turn that it missed.
                following = when + interval if when + interval > now else now + interval
                heapq.heappush(self._timers, (following, order, interval, work))
            self._guards["timer"](work)
