# SPDX-License-Identifier: Apache-2.0
"""Metrics that come from the kernel's maps and programs as they are at the scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ringfence.abi import Drop, EventKind
from ringfence.bpf.losses import Losses

__all__ = ["KernelLike", "event_label", "kernel_metrics", "reason_label"]

_FILLED = ("containers", "processes", "drops")  # hash maps that can fill up


class KernelLike(Protocol):
    """The part of ringfence.bpf.kernel.Kernel that is used here."""

    def map(self, name: str) -> Any: ...
    @property
    def losses(self) -> Losses: ...
    def program_stats(self) -> Iterable[Any]: ...
    @property
    def attached(self) -> Any: ...
    @property
    def skipped(self) -> Any: ...
    @property
    def alerts(self) -> Any: ...
    @property
    def activity(self) -> Any: ...


def kernel_metrics(kernel: KernelLike, *, timed: bool) -> Iterator[Metric]:
    """Emitted and dropped records, programs, maps and rings."""
    yield _emitted(kernel)
    yield _dropped(kernel)
    yield from _programs(kernel, timed=timed)
    yield from _maps(kernel)
    yield from _rings(kernel)
    hooks = GaugeMetricFamily("ringfence_hooks", "Places where programs shall be.", labels=["state"])
    hooks.add_metric(["attached"], len(kernel.attached))
    absent = sum(skip.absent for skip in kernel.skipped)
    hooks.add_metric(["absent"], absent)
    hooks.add_metric(["skipped"], len(kernel.skipped) - absent)
    yield hooks


def _emitted(kernel: KernelLike) -> Metric:
    family = CounterMetricFamily(
        "ringfence_events_emitted", "Records that the kernel sent.", labels=["event"]
    )
    sums = {int.from_bytes(key, "little"): total[0] for key, total in kernel.map("emitted").all_sums()}
    for kind in EventKind:
        if kind:
            family.add_metric([kind.label], sums.get(kind, 0))
    return family


def _dropped(kernel: KernelLike) -> Metric:
    family = CounterMetricFamily(
        "ringfence_events_dropped",
        "Records or facts that the kernel could not send or keep.",
        labels=["event", "reason"],
    )
    totals: Counter[tuple[str, str]] = Counter({("none", reason.label): 0 for reason in Drop})
    for (event, reason), count in kernel.losses.totals().items():
        totals[event_label(event), reason_label(reason)] += count
    for labels, count in totals.items():
        family.add_metric(labels, count)
    return family


def _programs(kernel: KernelLike, *, timed: bool) -> Iterator[Metric]:
    runs = CounterMetricFamily(
        "ringfence_program_runs", "Runs of a BPF program while counted.", labels=["program"]
    )
    seconds = CounterMetricFamily(
        "ringfence_program_run_seconds", "Time in a BPF program.", labels=["program"]
    )
    misses = CounterMetricFamily(
        "ringfence_program_misses",
        "Times that a BPF program did not run, as it ran on that CPU already.",
        labels=["program"],
    )
    for program in kernel.program_stats():
        misses.add_metric([program.name], program.misses)
        runs.add_metric([program.name], program.run_count)
        seconds.add_metric([program.name], program.run_time_ns / 1e9)
    yield runs
    yield seconds
    yield misses
    counted = GaugeMetricFamily(
        "ringfence_program_stats_enabled", "1 when this agent has BPF programs timed."
    )
    counted.add_metric([], 1 if timed else 0)
    yield counted


def _maps(kernel: KernelLike) -> Iterator[Metric]:
    entries = GaugeMetricFamily("ringfence_map_entries", "Entries in a BPF map.", labels=["map"])
    room = GaugeMetricFamily("ringfence_map_max_entries", "Entries that a BPF map can hold.", labels=["map"])
    for name in _FILLED:
        bpf_map = kernel.map(name)
        entries.add_metric([name], bpf_map.fill())
        room.add_metric([name], bpf_map.max_entries)
    yield entries
    yield room


def _rings(kernel: KernelLike) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("ringfence_ring_pending_bytes", "Bytes in a ring that wait.", labels=["ring"])
    size = GaugeMetricFamily("ringfence_ring_size_bytes", "Size of a ring.", labels=["ring"])
    for name, ring in (("alerts", kernel.alerts), ("activity", kernel.activity)):
        waiting.add_metric([name], ring.pending())
        size.add_metric([name], kernel.map(name).max_entries)
    yield waiting
    yield size


def event_label(number: int) -> str:
    """The word for a number of enum rf_event."""
    try:
        return EventKind(number).label
    except ValueError:
        return "unknown"


def reason_label(number: int) -> str:
    """The word for a number of enum rf_drop."""
    try:
        return Drop(number).label
    except ValueError:
        return "unknown"
