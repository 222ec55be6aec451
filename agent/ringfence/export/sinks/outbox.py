# SPDX-License-Identifier: Apache-2.0
"""Passes finished alerts to every receiver's queue: `put` never blocks, a thread writes to disk."""

from __future__ import annotations

import hashlib
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.config import Config
from ringfence.config.receivers import Receiver as Configured
from ringfence.export.jsonl import dumps
from ringfence.export.sinks.formats import FORMATS
from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.local import RotatedFile, Syslog
from ringfence.export.sinks.sender import Receiver, Sender
from ringfence.export.sinks.spool import Spool
from ringfence.export.sinks.web import Alertmanager, Otlp, Webhook
from ringfence.faults import Guard, SupervisedThread
from ringfence.severity import at_least

__all__ = ["Outbox", "outbox_of", "receivers_of"]

_CAPACITY = 8192  # alerts that wait to be written to disk
_SYNC = 1.0  # seconds
_REASONS = ("queue_full", "refused", "undeliverable", "disk_error", "corrupt", "too_large")
Complain = Callable[[str, str], None]


class Outbox:
    """The queues and senders of all receivers. `lost` counts alerts that reached no queue."""

    def __init__(self, senders: Sequence[Sender], *, least: str = "info", sync: str = "second") -> None:
        self.senders = tuple(senders)
        self.lost = 0
        self._least, self._sync = least, sync
        self._queue: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._guard = Guard("outbox")
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

    def _sync_all(self) -> None:
        if self._sync != "never":
            for sender in self.senders:
                sender.spool.sync()


def receivers_of(config: Config) -> list[Receiver]:
    """Returns the configured receivers."""
    render = FORMATS[config.alerts_format]
    found: list[Receiver] = []
    for one in config.alerts_webhook:
        found.append(Webhook(_name("webhook", one.url), Http(one.url, _settings(config, one)), render))
    for one in config.alerts_alertmanager:
        http = Http(one.url.rstrip("/") + "/api/v2/alerts", _settings(config, one))
        found.append(Alertmanager(_name("alertmanager", one.url), http))
    for one in config.alerts_syslog:
        found.append(Syslog(_name("syslog", one.url), one.url, render, _settings(config, one)))
    for one in config.alerts_otlp:
        http = Http(one.url.rstrip("/") + "/v1/logs", _settings(config, one))
        found.append(Otlp(_name("otlp", one.url), http))
    if path := config.alerts_file:
        name = _name("file", str(path))
        found.append(RotatedFile(name, path, render, config.alerts_file_size, config.alerts_file_keep))
    return found


def _settings(config: Config, receiver: Configured) -> HttpSettings:
    """Returns this receiver's own settings, completed by the shared ones."""
    return HttpSettings(
        timeout=float(config.alerts_timeout),
        headers=config.alerts_headers if receiver.headers == "shared" else receiver.headers,
        ca=config.alerts_ca if receiver.ca == "shared" else receiver.ca,
        certificate=config.alerts_certificate if receiver.certificate == "shared" else receiver.certificate,
        key=receiver.key,
    )


def _name(kind: str, target: str) -> str:
    """Returns a stable name for a receiver. The address may contain a secret, so it is hashed."""
    return f"{kind}-{hashlib.sha256(target.encode()).hexdigest()[:8]}"


def outbox_of(config: Config, complain: Complain) -> Outbox:
    """Returns the configured receivers with their queues. Raises Error if a queue cannot be used."""
    senders: list[Sender] = []
    try:
        for receiver in receivers_of(config):
            spool = Spool(config.queue_dir / receiver.name, config.alerts_queue_size)
            senders.append(Sender(receiver, spool, complain))
    except BaseException:
        for sender in senders:
            sender.spool.close()
        raise
    return Outbox(senders, least=config.alerts_severity, sync=config.alerts_queue_sync)
