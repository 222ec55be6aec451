# SPDX-License-Identifier: Apache-2.0
"""One thread a receiver: take from its queue, send, try again later what did not arrive.

A receiver that is away, hangs or answers 500 costs time, never an alert: what waits stays on disk, up to the
queue's size. A record that the receiver refuses for what it is (400, 413 ...) is sent alone once more, then
counted as lost: it must not hold up the others for ever.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ringfence.export.sinks.spool import Batch, Spool

__all__ = ["Away", "Receiver", "Record", "Refused", "Sender"]

Record = dict[str, Any]
BACKOFF_FIRST, BACKOFF_MOST = 0.5, 60.0  # seconds
_RETRY_AFTER_MOST = 300.0


class Away(Exception):
    """The receiver could not be reached, or cannot take anything now. `reason` is a short word."""

    def __init__(self, reason: str, text: str = "", *, retry_after: float = 0.0) -> None:
        super().__init__(text or reason)
        self.reason, self.retry_after = reason, retry_after


class Refused(Exception):
    """The receiver will not take these records, ever."""


class Receiver(Protocol):
    """Somebody who takes alerts. Used by one thread."""

    name: str
    batch_records: int
    batch_bytes: int

    def send(self, records: Sequence[Record]) -> None:
        """Hand over; returns when the receiver said that it has them. Raises Away, Refused."""

    def close(self) -> None:
        """Free what is held."""


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
    ) -> None:
        """`complain(name, text)` is told when a row of failures begins, and with an empty text when it
        ends."""
        self.receiver, self.spool = receiver, spool
        self._complain, self._chance = complain, chance
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self.sent = 0
        self.retries: Counter[str] = Counter()  # by reason
        self.refused = 0
        self.up: bool | None = None  # what became of the last attempt
        self.last_sent = 0.0  # seconds since the epoch
        self._thread = threading.Thread(target=self._run, name=f"send-{receiver.name}", daemon=True)

    @property
    def name(self) -> str:
        """The receiver's name in metrics and logs."""
        return self.receiver.name

    @property
    def lost(self) -> Counter[str]:
        """Records that will never arrive, by reason."""
        return self.spool.lost + Counter({"refused": self.refused})

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Send what can be sent within `timeout`, and end; the rest stays in the queue."""
        end = time.monotonic() + timeout
        while self._thread.is_alive() and self.spool.records and self.up and time.monotonic() < end:
            time.sleep(0.01)
        self._stop.set()
        self.spool.wake()
        if self._thread.ident is not None:
            self._thread.join(max(0.1, end - time.monotonic()))
        if not self._thread.is_alive():
            self.receiver.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self.step()

    def step(self, idle: float = 1.0) -> None:
        """Deliver one batch, or wait up to `idle` seconds for one."""
        batch = self.spool.take(self.receiver.batch_records, self.receiver.batch_bytes)
        if batch is None:
            self.spool.wait(idle)
        elif self._deliver(batch):
            self.spool.done(batch)

    def _deliver(self, batch: Batch) -> bool:
        """True when the batch is settled; False at the end of the agent."""
        records = [record for payload in batch.records if (record := _parse(payload)) is not None]
        self.spool.lost["corrupt"] += len(batch.records) - len(records)
        groups = [records] if records else []
        while groups:
            group = groups[0]
            try:
                done = self._insist(group)
            except Refused as error:
                if len(group) > 1:
                    groups[:1] = [[record] for record in group]
                    continue
                self.refused += 1
                self._complain(self.name, f"refuses an alert: {error}")
                done = True
            if not done:
                return False
            groups.pop(0)
        return True

    def _insist(self, records: Sequence[Record]) -> bool:
        """Until the receiver has them; False at the end of the agent. Raises Refused."""
        attempt = 0
        while True:
            try:
                self.receiver.send(records)
            except Away as error:
                self.retries[error.reason] += 1
                if self.up is not False:
                    self._complain(self.name, str(error))
                self.up = False
                least = min(error.retry_after, _RETRY_AFTER_MOST)
                if self._pause(max(least, self._backoff(attempt))):
                    return False
                attempt += 1
                continue
            if self.up is False:
                self._complain(self.name, "")
            self.up = True
            self.sent += len(records)
            self.last_sent = time.time()
            return True

    def _backoff(self, attempt: int) -> float:
        """Twice as long each time, and never in step with the other nodes."""
        longest = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** min(attempt, 16))
        return longest * (0.5 + 0.5 * self._chance())


def _parse(payload: bytes) -> Record | None:
    try:
        record = json.loads(payload)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
