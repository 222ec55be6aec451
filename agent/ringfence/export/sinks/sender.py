# SPDX-License-Identifier: Apache-2.0
"""One thread per receiver: takes alerts from its queue, sends them, and tries failed ones again.

A receiver that is unreachable, hangs or answers 500 costs time, never an alert: alerts wait on disk,
up to the queue's size. Two kinds of alert must not block the others forever. A refused one (400, 413
...) is sent alone once more, then counted as lost. One that fails while others are accepted is a
suspect: it moves to the end of the queue, is tried alone, and is counted as lost if it keeps failing
for an hour in which others are accepted.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from ringfence.containers.enrich import safejson
from ringfence.export.sinks.spool import Batch, Spool
from ringfence.faults import ErrorCounter, SupervisedThread

__all__ = ["HELD_S", "TRIES", "Receiver", "Record", "Refused", "Sender", "Unavailable"]

Record = dict[str, Any]
BACKOFF_FIRST, BACKOFF_MOST = 0.5, 60.0  # seconds
_RETRY_AFTER_MOST = 300.0
_SPLIT_AFTER = 4  # failures of a batch, before its alerts are sent one by one
_ENOUGH = 3  # failures of single alerts without a success: the receiver is at fault
#: an alert is given up after this many failures and seconds between the first and the last, if the
#: receiver has accepted another alert since the last failure
TRIES, HELD_S = 16, 3600
_MARK = "_failed"  # field of a queued suspect: [number of failures, time of the first]
_SUSPECTS_MAX = 1000  # suspects with a remembered count of earlier deliveries
#: reasons of Unavailable that no alert causes
_NEVER_SPLIT = ("headers", "disk_full", "file")


class Unavailable(Exception):
    """The receiver is unreachable, or cannot accept anything now. `reason` is a short word.

    `blameless`: no alert caused it: the receiver did not see any, or there were too many.
    `retry_after` is the receiver's requested delay in seconds.
    """

    def __init__(
        self, reason: str, text: str = "", *, retry_after: float = 0.0, blameless: bool = False
    ) -> None:
        super().__init__(text or reason)
        self.reason, self.retry_after = reason, retry_after
        self.blameless = blameless or reason in _NEVER_SPLIT


class Refused(Exception):
    """The receiver refuses these records permanently."""


class Receiver(Protocol):
    """A destination of alerts. Used by one thread."""

    name: str
    batch_records: int
    batch_bytes: int

    def send(self, records: Sequence[Record]) -> int | None:
        """Sends; returns when the receiver has confirmed, with the number of permanently refused records.

        Raises Unavailable, Refused.
        """

    def close(self) -> None:
        """Frees resources."""


class _Item(NamedTuple):
    """An alert of the queue, and how often it failed while others were accepted, since when (0: never)."""

    record: Record
    tries: int = 0
    since: float = 0.0


class Sender:
    """Moves records from a queue to a receiver. `pause(seconds)` waits, and returns True at the end."""

    def __init__(
        self,
        receiver: Receiver,
        spool: Spool,
        complain: Callable[[str, str], None] = lambda name, text: None,
        *,
        pause: Callable[[float], bool] | None = None,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`complain(name, text)` is called when failures begin, and with an empty text when they end."""
        self.receiver, self.spool = receiver, spool
        self._complain, self._chance, self._now = complain, chance, now
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._guard = ErrorCounter("sender")
        self._before: dict[str, int] = {}  # suspect's id -> number of deliveries at its last failure
        self._idle_rounds = 0  # rounds with suspects only, none of which was accepted
        self._asked = 0.0  # delay in seconds that the receiver requested
        self.sent = 0
        self.retries: Counter[str] = Counter()  # by reason
        self.given_up: Counter[str] = Counter()  # refused, undeliverable
        self.up: bool | None = None  # result of the last attempt
        self.last_sent = 0.0  # seconds since the epoch
        self._thread = SupervisedThread(f"send-{receiver.name}", self._run)

    @property
    def name(self) -> str:
        """The receiver's name in metrics and logs."""
        return self.receiver.name

    @property
    def lost(self) -> Counter[str]:
        """Lost records by reason."""
        found = Counter(dict(self.spool.lost))  # copied atomically: other threads count meanwhile
        found.update(dict(self.given_up))
        return found

    def start(self) -> None:
        """Starts sending."""
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Sends what it can within `timeout` and ends; the rest stays in the queue."""
        end = time.monotonic() + timeout
        while self._thread.alive and self.spool.records and self.up and time.monotonic() < end:
            time.sleep(0.01)
        self._stop.set()
        self._thread.stop()
        self.spool.wake()
        self._thread.join(max(0.1, end - time.monotonic()))
        if not self._thread.alive:
            self.receiver.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()

    def step(self, idle: float = 1.0) -> None:
        """Delivers one batch, or waits up to `idle` seconds for one."""
        try:
            batch = self.spool.take(self.receiver.batch_records, self.receiver.batch_bytes)
        except OSError as error:  # for example, no free descriptor
            self._failed(Unavailable("queue", f"the queue cannot be read: {error.strerror}"))
            self._pause(max(idle, BACKOFF_FIRST))
            return
        if batch is None:
            self.spool.wait(idle)
        elif self._deliver(batch):
            self.spool.done(batch)

    def _deliver(self, batch: Batch) -> bool:
        """Tries until the batch is settled. Returns False if the agent ends before."""
        items = [item for payload in batch.records if (item := _parse(payload)) is not None]
        self.spool.lost["corrupt"] += len(batch.records) - len(items)
        fresh = [item for item in items if not item.since]
        suspects = [item for item in items if item.since]
        return self._insist(fresh) and self._retry(suspects, alone=not fresh)

    def _insist(self, items: list[_Item]) -> bool:
        """Tries until the receiver has them or some are suspects. Returns False if the agent ends."""
        attempt = 0
        while items:
            try:
                self._send([item.record for item in items])
                return True
            except Refused:
                items = self._one_by_one(items, 0)
            except Unavailable as away:
                if (attempt + 1) % _SPLIT_AFTER == 0 and not away.blameless:
                    first = int(self._chance() * len(items)) % len(items)  # not the same ones each time
                    items = self._one_by_one(items, first)
            if items and self._pause(max(self._asked, self._backoff(attempt))):
                return False
            attempt += 1
        return True

    def _one_by_one(self, items: list[_Item], first: int) -> list[_Item]:
        """Sends each alone and returns the unsettled ones.

        If one was accepted, the receiver works, and those that failed are suspects.
        """
        failed: list[int] = []
        settled: set[int] = set()
        taken = 0
        for index in [*range(first, len(items)), *range(first)]:
            try:
                self._send([items[index].record])
                taken += 1
            except Refused as error:
                self._give_up("refused", f"refuses an alert: {error}")
            except Unavailable as away:
                if away.blameless or self._stop.is_set():
                    break
                failed.append(index)
                if not taken and len(failed) == _ENOUGH:
                    break
                continue
            settled.add(index)
        alone = len(items) == 1 and self.spool.records  # others wait: try them for comparison
        if (taken or alone) and not self._stop.is_set():
            for index in failed:
                self._postpone(items[index])
            settled.update(failed)
        return [item for index, item in enumerate(items) if index not in settled]

    def _retry(self, suspects: list[_Item], *, alone: bool) -> bool:
        """Tries each alone, once; pauses if nothing else waits. Returns False if the agent ends."""
        if suspects and alone:
            if self._pause(max(self._asked, self._backoff(self._idle_rounds))):
                return False
            self._idle_rounds += 1
        there = True
        for item in suspects:
            try:
                if there:
                    self._send([item.record], quiet=not alone)
                else:
                    self._postpone(item, blame=False)
            except Refused as error:
                self._give_up("refused", f"refuses an alert: {error}")
            except Unavailable as away:
                there = not away.blameless
                self._postpone(item, blame=there)
        return True

    def _postpone(self, item: _Item, *, blame: bool = True) -> None:
        """Moves an alert to the end of the queue, or gives it up after too many failures."""
        name, now = str(item.record.get("id")), self._now()
        if len(self._before) > _SUSPECTS_MAX:
            self._before.clear()
        blamed = blame and self.sent > self._before.get(name, 0)
        if blame:
            self._before[name] = self.sent
        tries, since = item.tries + blamed, item.since or now
        if tries >= TRIES and now - since >= HELD_S:
            self._give_up("undeliverable", f"fails for alert {name}, but accepts others")
            return
        payload = {**item.record, _MARK: [tries, since]}
        self.spool.append(json.dumps(payload, separators=(",", ":")).encode())

    def _give_up(self, reason: str, text: str, count: int = 1) -> None:
        self.given_up[reason] += count
        self._complain(self.name, text)

    def _send(self, records: Sequence[Record], *, quiet: bool = False) -> None:
        """Sends once. Raises Refused, Unavailable; any other exception is a bug, and handled as Unavailable.

        `quiet`: a failure does not indicate that the receiver is unreachable.
        """
        try:
            refused = self.receiver.send(records) or 0
        except Refused:
            self._succeeded()  # it answers
            raise
        except Unavailable as away:
            self._failed(away, quiet=quiet)
            raise
        except Exception as error:
            self._guard.failed(error)
            bug = Unavailable("bug", f"a bug of the agent: {type(error).__name__}")
            self._failed(bug, quiet=quiet)
            raise bug from error
        self._succeeded()
        self._idle_rounds = 0
        if refused:
            self._give_up("refused", f"refuses {refused} of {len(records)} alerts", refused)
        self.sent += len(records) - refused
        self.last_sent = time.time()

    def _failed(self, away: Unavailable, *, quiet: bool = False) -> None:
        self.retries[away.reason] += 1
        if quiet:
            return
        self._asked = min(away.retry_after, _RETRY_AFTER_MOST)
        if self.up is not False:
            self._complain(self.name, str(away))
        self.up = False

    def _succeeded(self) -> None:
        if self.up is False:
            self._complain(self.name, "")
        self.up, self._asked = True, 0.0

    def _backoff(self, attempt: int) -> float:
        """Returns a doubled delay, with jitter to keep nodes out of step."""
        longest = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(attempt, 16))
        return longest * (0.5 + 0.5 * self._chance())


def _parse(payload: bytes) -> _Item | None:
    try:
        record = safejson.parse(payload)
    except safejson.Unusable:
        return None
    if not isinstance(record, dict):
        return None
    match record.pop(_MARK, None):
        case [int(tries), float(since) | int(since)]:
            return _Item(record, tries, float(since))
    return _Item(record)
