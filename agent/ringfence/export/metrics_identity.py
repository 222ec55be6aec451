# SPDX-License-Identifier: Apache-2.0
"""Metrics of the sources that identify containers and pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sized
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

__all__ = ["WatchLike", "identity_metrics"]


class WatchLike(Protocol):
    """The part of ringfence.containers.kubernetes.watch.PodWatch that is used here."""

    up: bool
    used: int
    unusable: int
    last_heard: float

    @property
    def restarts(self) -> Mapping[str, int]: ...


def identity_metrics(
    watch: WatchLike | None, pods: Sized | None, errors: Mapping[str, int]
) -> Iterator[Metric]:
    """The families of one scrape; those of the watch are empty where no API server is followed."""
    failed = CounterMetricFamily(
        "ringfence_enrichment_errors", "Questions to a runtime that failed.", labels=["source"]
    )
    for source, count in list(errors.items()):
        failed.add_metric([source], count)
    yield failed
    for name, text, value in (
        ("ringfence_pod_watch_up", "1 while the API server is followed.", float(watch.up) if watch else None),
        ("ringfence_pod_watch_pods", "Pods of this node that it told of.",
         float(len(pods)) if pods is not None else None),
        ("ringfence_pod_watch_last_heard_timestamp_seconds", "When it last said something.",
         watch.last_heard if watch else None),
    ):  # fmt: skip
        gauge = GaugeMetricFamily(name, text, labels=[])
        if value is not None:
            gauge.add_metric([], value)
        yield gauge
    restarts = CounterMetricFamily(
        "ringfence_pod_watch_restarts", "Times that it was asked anew, by why.", labels=["reason"]
    )
    for reason, count in dict(watch.restarts if watch else {}).items():
        restarts.add_metric([reason], count)
    yield restarts
    events = CounterMetricFamily(
        "ringfence_pod_watch_events", "What the watch told, by whether it could be used.", labels=["usable"]
    )
    if watch:
        events.add_metric(["yes"], watch.used)
        events.add_metric(["no"], watch.unusable)
    yield events
