# SPDX-License-Identifier: Apache-2.0
"""The metrics: one collector that reads maps and counters at scrape time, and maintains nothing in between.

Every label has a bounded number of values; per-container series exist for live containers only, up to a
limit. docs/metrics.md lists every metric, and a test compares.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ringfence import __version__
from ringfence.abi import ContainerValue, EventKind
from ringfence.containers.model import Container
from ringfence.export.jsonl import LineWriter
from ringfence.export.metrics_alerts import OutboxLike, outbox_metrics
from ringfence.export.metrics_containers import ContainerMetrics
from ringfence.export.metrics_kernel import KernelLike, kernel_metrics
from ringfence.export.metrics_pressure import PressureMetrics
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.faults import handler_errors, thread_failures

__all__ = ["PolicyState", "RingfenceCollector", "Sources", "new_registry"]


class PolicyState(NamedTuple):
    """What is in the kernel, and what became of the last attempt to change it."""

    generation: int = 0
    policies: int = 0
    rules: Mapping[tuple[str, str], int] = {}  # (action, mechanism) -> rules
    refused: Sequence[str] = ()  # the problems of a set that was refused after this one was loaded
    loaded_at: float = 0.0  # seconds since the epoch


class LifeCounts(Protocol):
    """The part of ringfence.containers.registry.Counts that is used here."""

    created: int
    started: int
    removed: int
    unattributed: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the numbers come from. The callables are called from a scrape's thread."""

    stats: Stats
    kernel: KernelLike
    containers: Callable[[], Sequence[Container]]  # live ones
    slots: Callable[[int], ContainerValue | None]
    life: LifeCounts
    policies: Callable[[], PolicyState]
    ready: Callable[[], str]
    program_stats: bool = False
    pressure: PressureMetrics = field(default_factory=lambda: PressureMetrics(None, None))
    mode: str = "policy"
    container_limit: int = 200
    writers: Sequence[LineWriter] = field(default_factory=list)
    stream: StreamServer | None = None
    outbox: OutboxLike | None = None
    redacted: Callable[[], int] = int
    probes: Callable[[], Iterable[Metric]] = tuple  # of custom probes
    more: Sequence[Callable[[], Iterable[Metric]]] = ()  # families of parts that count for themselves
    extra: Callable[[], Iterable[tuple[str, str, float]]] = tuple  # (metric, label value, count): see _EXTRA


def new_registry(sources: Sources) -> CollectorRegistry:
    """A registry with our collector and the usual process_* metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RingfenceCollector(sources))
    ProcessCollector(registry=registry)
    return registry


class RingfenceCollector(Collector):
    """Everything that starts with ringfence_."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._containers = ContainerMetrics(
            sources.kernel, sources.slots, sources.containers, sources.container_limit
        )

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape."""
        yield from self._agent()
        yield from self._events()
        yield from self._alerts()
        yield from self._policies()
        yield from self._output()
        yield counter("ringfence_records_redacted", "Records in which something secret was hidden.", {},
                      self._sources.redacted())  # fmt: skip
        if self._sources.outbox is not None:
            yield from outbox_metrics(self._sources.outbox)
        for families in self._sources.more:
            yield from families()
        yield from kernel_metrics(self._sources.kernel, timed=self._sources.program_stats)
        yield from self._life()
        yield from self._containers.collect()
        yield from self._sources.pressure.collect(self._containers.own())
        yield from self._sources.probes()

    def _agent(self) -> Iterator[Metric]:
        stats = self._sources.stats
        yield gauge("ringfence_build_info", "Version of the agent.", {"version": __version__}, 1)
        yield gauge("ringfence_ready", "1 when programs are attached and policies are in the kernel.", {},
                    0 if self._sources.ready() else 1)  # fmt: skip
        yield gauge(
            "ringfence_startup_seconds", "From the start of the process to ready.", {}, stats.startup_seconds
        )
        yield gauge("ringfence_attach_seconds", "Part of the start that attaching programs took.", {},
                    stats.attach_seconds)  # fmt: skip
        mode = GaugeMetricFamily("ringfence_mode", "1 for the mode that was configured.", labels=["mode"])
        for name in ("audit", "enforce", "policy"):
            mode.add_metric([name], name == self._sources.mode)
        yield mode
        if stats.canary_seen:
            yield gauge("ringfence_canary_seconds", "Since the canary was heard last.", {},
                        time.monotonic() - stats.canary_seen)  # fmt: skip
        yield counter("ringfence_canaries", "Canaries that were heard.", {}, stats.canaries)
        yield gauge("ringfence_activity_halvings", "How often the rate of activity is halved just now.", {},
                    stats.activity_halvings)  # fmt: skip
        yield counters("ringfence_handler_errors", "Bugs of the agent that it survived.", "where",
                       handler_errors)  # fmt: skip
        yield counters("ringfence_thread_failures", "Threads of the agent that failed and were begun anew.",
                       "thread", thread_failures)  # fmt: skip

    def _events(self) -> Iterator[Metric]:
        stats = self._sources.stats
        received = CounterMetricFamily(
            "ringfence_events", "Records received from the kernel.", labels=["event"]
        )
        for kind in EventKind:
            if kind:
                received.add_metric([kind.label], stats.received[kind])
        yield received
        yield counters(
            "ringfence_decode_errors", "Records that could not be read.", "reason", stats.decode_errors
        )
        yield counters("ringfence_events_unattributed", "Records of no known container.", "reason",
                       self._sources.life.unattributed)  # fmt: skip

    def _alerts(self) -> Iterator[Metric]:
        stats = self._sources.stats
        alerts = CounterMetricFamily(
            "ringfence_alerts", "Alerts, by what became of the call: denied, killed, seen or would-be.",
            labels=["rule", "severity", "action", "outcome"],
        )  # fmt: skip
        for labels, count in list(stats.alerts.items()):
            alerts.add_metric(labels, count)
        yield alerts
        yield from stats.attempts.collect()
        yield counters(
            "ringfence_alerts_suppressed", "Alerts that were not written.", "rule", stats.alerts_suppressed
        )
        latency = HistogramMetricFamily(
            "ringfence_alert_latency_seconds", "From the call to the line handed out."
        )
        latency.add_metric([], stats.alert_latency.cumulative(), stats.alert_latency.total)
        yield latency

    def _policies(self) -> Iterator[Metric]:
        state = self._sources.policies()
        yield gauge("ringfence_policy_generation", "Generation of rules in the kernel; 0: none.", {},
                    state.generation)  # fmt: skip
        yield gauge("ringfence_policies", "Policies in the kernel.", {}, state.policies)
        rules = GaugeMetricFamily(
            "ringfence_rules", "Rules in the kernel, by what they do and how.", labels=["action", "mechanism"]
        )
        for labels, count in state.rules.items():
            rules.add_metric(labels, count)
        yield rules
        yield gauge("ringfence_policy_up_to_date", "0 while the files hold a set that was refused.", {},
                    0 if state.refused else 1)  # fmt: skip
        yield gauge(
            "ringfence_policy_problems", "Problems of the set that was refused.", {}, len(state.refused)
        )
        yield gauge("ringfence_policy_loaded_timestamp_seconds", "When the set in the kernel was loaded.", {},
                    state.loaded_at)  # fmt: skip
        yield counters("ringfence_policy_loads", "Attempts to load policies.", "result",
                       {"loaded": 0, "refused": 0} | self._sources.stats.reloads)  # fmt: skip

    def _output(self) -> Iterator[Metric]:
        lines = CounterMetricFamily("ringfence_output_lines", "JSON lines written.", labels=["destination"])
        dropped = CounterMetricFamily(
            "ringfence_output_lines_dropped", "JSON lines lost.", labels=["destination", "reason"]
        )
        for writer in self._sources.writers:
            lines.add_metric([writer.name], writer.written)
            for reason, count in {
                "slow": 0,
                "closed": 0,
                "disk_full": 0,
                "error": 0,
                **writer.dropped,
            }.items():
                dropped.add_metric([writer.name, reason], count)
        yield lines
        yield dropped
        stream = self._sources.stream
        yield gauge(
            "ringfence_stream_clients", "Clients of the local socket.", {}, stream.clients if stream else 0
        )
        yield counters(
            "ringfence_stream_records_lost", "Records that a client of the socket did not get.", "reason",
            {"queue_full": stream.lost if stream else 0, "slow_client": stream.missed if stream else 0},
        )  # fmt: skip
        extra: dict[str, dict[str, float]] = {name: {} for name in _EXTRA}
        for name, value, number in self._sources.extra():
            extra[name][value] = number
        for name, (help_text, label) in _EXTRA.items():
            yield counters(name, help_text, label, extra[name])

    def _life(self) -> Iterator[Metric]:
        life = self._sources.life
        counts = {"created": life.created, "started": life.started, "removed": life.removed}
        yield counters(
            "ringfence_container_transitions", "Containers made, started and removed.", "to", counts
        )


_EXTRA = {
    "ringfence_enrichments": ("Containers that the runtimes were asked about, by result.", "result"),
    "ringfence_handshakes": ("Containers that their runtime told of before their start.", "result"),
    "ringfence_repairs": ("Times that something was read anew after a loss.", "what"),
    "ringfence_takeover_records": (
        "Records that an earlier agent left unread, by what became of them.",
        "outcome",
    ),
    "ringfence_tampered": ("Things of the agent's that were not as it had left them.", "what"),
    "ringfence_responses": ("Kills from user space, by result.", "result"),
}


def gauge(name: str, text: str, labels: Mapping[str, str], value: float) -> Metric:
    """A gauge with one series."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def counter(name: str, text: str, labels: Mapping[str, str], value: float) -> Metric:
    """A counter with one series; `_total` is added."""
    family = CounterMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """A counter with one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in list(values.items()):
        family.add_metric([value], count)
    return family
