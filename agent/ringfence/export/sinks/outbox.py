# SPDX-License-Identifier: Apache-2.0
"""Passes finished alerts to every receiver's queue: `put` never blocks, a thread writes to disk."""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.config import Config
from ringfence.export.jsonl import dumps
from ringfence.export.sinks.receivers import receivers_of
from ringfence.export.sinks.sender import Sender
from ringfence.export.sinks.spool import Damaged, Spool
from ringfence.faults import ErrorCounter, SupervisedThread
from ringfence.severity import at_least

__all__ = ["Outbox", "outbox_of"]

_CAPACITY = 8192  # alerts that wait to be written to disk
_SYNC = 1.0  # seconds
_REASONS = ("queue_full", "refused", "undeliverable", "disk_error", "corrupt", "too_large")
Complain = Callable[[str, str], None]


class Outbox:
    """The queues and senders of all receivers. `lost` counts alerts that reached no queue."""

    def __init__(
        self,
        senders: Sequence[Sender],
        *,
        least: str = "info",
        sync: str = "second",
        unwritten: Complain = lambda receiver, reason: None,
    ) -> None:
        """`unwritten` gets a receiver and why its queue cannot be written, and an empty reason afterwards."""
        self.senders = tuple(senders)
        self._unwritten, self._reasons = unwritten, dict.fromkeys(self.senders, "")
        self.lost = 0
        self._least, self._sync = least, sync
        self._queue: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._guard = ErrorCounter("outbox")
        self._thread = SupervisedThread("outbox", self._run)

    def start(self) -> None:
        """Starts writing and sending."""
        self._thread.start()
        for sender in self.senders:
            sender.start()

    def put(self, record: Mapping[str, Any]) -> bool:
        """Takes an alert, which must not be changed afterwards. Returns False if it was lost (counted)."""
        if not self.senders or not at_least(record.get("severity"), self._least):
            return True
        if self._queue.qsize() >= _CAPACITY:
            self.lost += 1
            return False
        self._queue.put(record)
        return True

    def close(self, timeout: float = 3.0) -> None:
        """Writes all alerts and sends what it can within `timeout`; the rest stays on disk."""
        end = time.monotonic() + timeout
        self._queue.put(None)
        self._thread.stop()
        self._thread.join(timeout)
        for sender in self.senders:
            sender.close(max(0.1, end - time.monotonic()))
            sender.spool.close()

    def lost_by_reason(self) -> Iterator[tuple[str, str, int]]:
        """Yields (receiver, reason, alerts) of all losses."""
        for sender in self.senders:
            reasons = Counter(dict.fromkeys(_REASONS, 0))
            reasons.update(sender.lost)
            yield from ((sender.name, reason, count) for reason, count in reasons.items())
            yield sender.name, "overrun", self.lost

    def _run(self) -> None:
        synced = time.monotonic()
        while True:
            try:
                record = self._queue.get(timeout=_SYNC)
            except queue.Empty:
                self._sync_all()
                continue
            if record is None:
                self._sync_all()
                return
            if not self._guard(lambda record=record: self._write(record)):  # type: ignore[misc]
                self.lost += 1
            if self._sync == "always" or time.monotonic() - synced >= _SYNC:
                self._sync_all()
                synced = time.monotonic()

    def _write(self, record: Mapping[str, Any]) -> None:
        payload = dumps(record).encode("utf-8", "backslashreplace")
        for sender in self.senders:
            sender.spool.append(payload)
            self._report(sender)

    def _sync_all(self) -> None:
        if self._sync != "never":
            for sender in self.senders:
                sender.spool.sync()
                self._report(sender)

    def _report(self, sender: Sender) -> None:
        """Reports once that records stay in memory, and once that the disk takes them again."""
        reason = sender.spool.refused
        if bool(reason) != bool(self._reasons[sender]):
            self._reasons[sender] = reason
            self._unwritten(sender.name, reason)


def outbox_of(
    config: Config,
    complain: Complain,
    damaged: Damaged = lambda path, offset, records: None,
    unwritten: Complain = lambda receiver, reason: None,
) -> Outbox:
    """Returns the configured receivers with their queues. Raises Error if a queue cannot be used.

    `damaged` gets the damaged records of the queues, from any thread; `unwritten` is that of `Outbox`.
    """
    senders: list[Sender] = []
    try:
        for receiver in receivers_of(config):
            spool = Spool(config.queue_dir / receiver.name, config.alerts_queue_size, damaged=damaged)
            senders.append(Sender(receiver, spool, complain))
    except BaseException:
        for sender in senders:
            sender.spool.close()
        raise
    sync = config.alerts_queue_sync
    return Outbox(senders, least=config.alerts_severity, sync=sync, unwritten=unwritten)
