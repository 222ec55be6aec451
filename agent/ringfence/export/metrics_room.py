# SPDX-License-Identifier: Apache-2.0
"""How full every bounded thing is, how near the agent is to its own limits, and what would outlive it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ringfence.export.metrics_kernel import event_label, reason_label

__all__ = ["Limits", "continuity_metrics", "limit_metrics", "room_metrics"]


class Limits(Protocol):
    """The part of ringfence.daemon.startup.resource_limits that is used here."""

    @property
    def memory_limit(self) -> int: ...
    @property
    def cpus(self) -> float: ...
    @property
    def throttled_seconds(self) -> float: ...
    def memory_used(self) -> float: ...


def room_metrics(rooms: Mapping[str, tuple[int, int]], evicted: Mapping[str, int]) -> Iterator[Metric]:
    """`rooms`: a word of ours -> entries now, and at most. `evicted`: entries that went before their time."""
    used = GaugeMetricFamily("ringfence_room_used", "Entries in something that has a bound.", labels=["of"])
    size = GaugeMetricFamily("ringfence_room_size", "Entries that it can have.", labels=["of"])
    for name, (now, most) in rooms.items():
        used.add_metric([name], now)
        size.add_metric([name], most)
    yield used
    yield size
    gone = CounterMetricFamily("ringfence_room_evicted", "Entries that went for want of room.", labels=["of"])
    for name, count in evicted.items():
        gone.add_metric([name], count)
    yield gone


def continuity_metrics(pinned: bool, lost: Mapping[tuple[int, int], int]) -> Iterator[Metric]:
    """`lost`: what the agent before could not tell, by event and reason."""
    family = GaugeMetricFamily("ringfence_pinned", "1 when what is attached outlives this agent.")
    family.add_metric([], pinned)
    yield family
    dropped = CounterMetricFamily(
        "ringfence_takeover_dropped",
        "What the agent before this one could not send or keep.",
        labels=["event", "reason"],
    )
    for (event, reason), count in lost.items():
        dropped.add_metric([event_label(event), reason_label(reason)], count)
    yield dropped


def limit_metrics(limits: Limits) -> Iterator[Metric]:
    """The agent's own; a limit that is not there has no sample."""
    bytes_ = GaugeMetricFamily("ringfence_agent_memory_limit_bytes", "Memory that the agent may have.")
    ratio = GaugeMetricFamily("ringfence_agent_memory_ratio", "Part of that which it has.")
    if limit := limits.memory_limit:
        bytes_.add_metric([], limit)
        ratio.add_metric([], limits.memory_used())
    cpus = GaugeMetricFamily("ringfence_agent_cpu_limit", "CPUs that the agent may use.")
    if share := limits.cpus:
        cpus.add_metric([], share)
    held = CounterMetricFamily("ringfence_agent_throttled_seconds", "Time that its CPU limit held the agent.")
    held.add_metric([], limits.throttled_seconds)
    yield from (bytes_, ratio, cpus, held)
