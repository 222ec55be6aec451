# SPDX-License-Identifier: Apache-2.0
"""Metrics of the receivers of alerts. Their names hold a hash of the address, never the address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["RETRY_REASONS", "OutboxLike", "SenderLike", "outbox_metrics"]

RETRY_REASONS = (
    "connection", "timeout", "http_3xx", "http_4xx", "http_5xx", "headers", "disk_full", "file",
    "queue", "bug",
)  # fmt: skip


class SpoolLike(Protocol):
    """The part of ringfence.export.sinks.spool.Spool that is used here."""

    size_max: int
    sync_errors: int

    @property
    def undelivered(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def in_memory(self) -> int: ...


class SenderLike(Protocol):
    """The part of ringfence.export.sinks.sender.Sender that is used here."""

    sent: int
    retries: Counter[str]
    up: bool | None
    last_sent: float

    @property
    def name(self) -> str: ...
    @property
    def spool(self) -> SpoolLike: ...


class OutboxLike(Protocol):
    """The part of ringfence.export.sinks.outbox.Outbox that is used here."""

    @property
    def senders(self) -> Sequence[SenderLike]: ...
    def lost_by_reason(self) -> Iterable[tuple[str, str, int]]: ...


def outbox_metrics(outbox: OutboxLike) -> Iterator[Metric]:
    """The families of one scrape."""
    for name, text, read in (
        ("ringfence_receiver_up", "1 when the last attempt to send succeeded.", lambda s: s.up is not False),
        ("ringfence_receiver_queue_records", "Alerts that wait for a receiver.",
         lambda s: s.spool.undelivered),
        ("ringfence_receiver_queue_bytes", "What the files of its queue hold.", lambda s: s.spool.held),
        ("ringfence_receiver_queue_max_bytes", "What they may hold.", lambda s: s.spool.size_max),
        ("ringfence_receiver_queue_memory_records", "Alerts that the disk did not take yet.",
         lambda s: s.spool.in_memory),
        ("ringfence_receiver_last_sent_timestamp_seconds", "When it last took an alert.",
         lambda s: s.last_sent),
    ):  # fmt: skip
        family = GaugeMetricFamily(name, text, labels=["receiver"])
        for sender in outbox.senders:
            family.add_metric([sender.name], float(read(sender)))
        yield family
    unsynced = CounterMetricFamily(
        "ringfence_receiver_sync_errors",
        "Times that its queue could not be forced to disk.",
        labels=["receiver"],
    )
    sent = CounterMetricFamily("ringfence_receiver_sent", "Alerts that it took.", labels=["receiver"])
    retries = CounterMetricFamily(
        "ringfence_receiver_retries",
        "Attempts that failed, and were made again.",
        labels=["receiver", "reason"],
    )  # fmt: skip
    for sender in outbox.senders:
        sent.add_metric([sender.name], sender.sent)
        unsynced.add_metric([sender.name], sender.spool.sync_errors)
        for reason, count in (dict.fromkeys(RETRY_REASONS, 0) | dict(sender.retries)).items():
            retries.add_metric([sender.name, reason], count)
    lost = CounterMetricFamily(
        "ringfence_receiver_lost", "Alerts that it will never get.", labels=["receiver", "reason"]
    )
    for receiver, reason, count in outbox.lost_by_reason():
        lost.add_metric([receiver, reason], count)
    yield from (sent, unsynced, retries, lost)
