# SPDX-License-Identifier: Apache-2.0
"""Families of metrics: each function makes the families of one subject from what it is given. No
state.

The parts of the agent call them in their `samples`. Families of single containers are in
container_metrics, those of custom probes in probe_metrics.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ringfence import __version__
from ringfence.abi import Drop, EventKind
from ringfence.faults import handler_errors, thread_failures

if TYPE_CHECKING:
    from ringfence.bpf.kernel import Kernel
    from ringfence.containers.kubernetes.watch import PodWatch
    from ringfence.export.jsonl import LineWriter
    from ringfence.export.sinks.sender import Sender
    from ringfence.export.stats import Stats
    from ringfence.export.stream import StreamServer

__all__ = [
    "RETRY_REASONS",
    "KernelMetrics",
    "PolicyState",
    "agent",
    "alerts",
    "canary",
    "capacity",
    "counter",
    "counters",
    "enrichment_errors",
    "event_label",
    "evicted",
    "gauge",
    "losses_of_predecessor",
    "output",
    "own_limits",
    "pod_watch",
    "policies",
    "reason_label",
    "receivers",
    "records",
]

RETRY_REASONS = (
    "connection", "timeout", "http_3xx", "http_4xx", "http_5xx", "headers", "disk_full", "file",
    "queue", "bug",
)  # fmt: skip
_LOST_LINES = ("slow", "closed", "disk_full", "error")
_FILLED = ("containers", "processes", "drops")  # hash maps that can fill up


class PolicyState(NamedTuple):
    """The policies in the kernel, and the result of the last attempt to change them."""

    generation: int = 0
    policies: int = 0
    rules: Mapping[tuple[str, str], int] = {}  # (action, mechanism) -> rules
    refused: Sequence[str] = ()  # the problems of a set that was refused after this one was loaded
    loaded_at: float = 0.0  # seconds since the epoch


# -- families of one series or one label ---------------------------------------


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


def capacity(of: str, used_and_limit: tuple[int, int]) -> Iterator[Metric]:
    """How full something with a bound is. `of` is a word of the agent's own."""
    used, limit = used_and_limit
    labels = {"of": of}
    yield gauge("ringfence_room_used", "Entries in something that has a bound.", labels, used)
    yield gauge("ringfence_room_size", "Entries that it can have.", labels, limit)


def evicted(of: str, count: int) -> Metric:
    """Entries that were removed early, or rejected, because something was full."""
    return counter("ringfence_room_evicted", "Entries that went for want of room.", {"of": of}, count)


# -- the agent -------------------------------------------------------------------


def agent(stats: Stats, mode: str, *, ready: bool) -> Iterator[Metric]:
    """Version, start, mode, and the bugs that were survived."""
    yield gauge("ringfence_build_info", "Version of the agent.", {"version": __version__}, 1)
    yield gauge(
        "ringfence_ready", "1 when programs are attached and policies are in the kernel.", {}, int(ready)
    )
    yield gauge(
        "ringfence_startup_seconds", "From the start of the process to ready.", {}, stats.startup_seconds
    )
    yield gauge("ringfence_attach_seconds", "Part of the start that attaching programs took.", {},
                stats.attach_seconds)  # fmt: skip
    modes = GaugeMetricFamily("ringfence_mode", "1 for the mode that was configured.", labels=["mode"])
    for name in ("audit", "enforce", "policy"):
        modes.add_metric([name], name == mode)
    yield modes
    yield counters("ringfence_handler_errors", "Bugs of the agent that it survived.", "where",
                   handler_errors)  # fmt: skip
    yield counters("ringfence_thread_failures", "Threads of the agent that failed and were begun anew.",
                   "thread", thread_failures)  # fmt: skip


def canary(seen: float, count: int) -> Iterator[Metric]:
    """`seen`: monotonic time of the last record; 0: there is no canary, and no such series."""
    if seen:
        yield gauge("ringfence_canary_seconds", "Since the canary was heard last.", {},
                    time.monotonic() - seen)  # fmt: skip
    yield counter("ringfence_canaries", "Canaries that were heard.", {}, count)


def own_limits(
    memory: tuple[int, float], cpus: float, throttled_seconds: float, halvings: int
) -> Iterator[Metric]:
    """The agent's own limits; one that does not exist has no sample.

    `memory`: the limit in bytes (0: none) and the part of it that is used. `cpus` 0: no limit.
    """
    limit, part = memory
    size = GaugeMetricFamily("ringfence_agent_memory_limit_bytes", "Memory that the agent may have.")
    ratio = GaugeMetricFamily("ringfence_agent_memory_ratio", "Part of that which it has.")
    if limit:
        size.add_metric([], limit)
        ratio.add_metric([], part)
    share = GaugeMetricFamily("ringfence_agent_cpu_limit", "CPUs that the agent may use.")
    if cpus:
        share.add_metric([], cpus)
    yield from (size, ratio, share)
    yield counter("ringfence_agent_throttled_seconds", "Time that its CPU limit held the agent.", {},
                  throttled_seconds)  # fmt: skip
    yield gauge("ringfence_activity_halvings", "How often the rate of activity is halved just now.", {},
                halvings)  # fmt: skip


# -- events and alerts -----------------------------------------------------------


def records(stats: Stats, unattributed: Mapping[str, int]) -> Iterator[Metric]:
    """Records of the rings, as they were received."""
    received = CounterMetricFamily("ringfence_events", "Records received from the kernel.", labels=["event"])
    for kind in EventKind:
        if kind:
            received.add_metric([kind.label], stats.received[kind])
    yield received
    yield counters(
        "ringfence_decode_errors", "Records that could not be read.", "reason", stats.decode_errors
    )
    yield counters("ringfence_events_unattributed", "Records of no known container.", "reason",
                   unattributed)  # fmt: skip


def alerts(stats: Stats) -> Iterator[Metric]:
    """Verdicts and findings, and the kills from user space."""
    family = CounterMetricFamily(
        "ringfence_alerts", "Alerts, by what became of the call: denied, killed, seen or would-be.",
        labels=["rule", "severity", "action", "outcome"],
    )  # fmt: skip
    for labels, count in list(stats.alerts.items()):
        family.add_metric(labels, count)
    yield family
    yield from stats.attempts.collect()
    yield counters(
        "ringfence_alerts_suppressed", "Alerts that were not written.", "rule", stats.alerts_suppressed
    )
    latency = HistogramMetricFamily(
        "ringfence_alert_latency_seconds", "From the call to the line handed out."
    )
    latency.add_metric([], stats.alert_latency.cumulative(), stats.alert_latency.total)
    yield latency
    yield counters("ringfence_responses", "Kills from user space, by result.", "result", stats.responses)


def policies(state: PolicyState, reloads: Mapping[str, int]) -> Iterator[Metric]:
    """The policies in the kernel, and the attempts to change them."""
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
    yield gauge("ringfence_policy_problems", "Problems of the set that was refused.", {}, len(state.refused))
    yield gauge("ringfence_policy_loaded_timestamp_seconds", "When the set in the kernel was loaded.", {},
                state.loaded_at)  # fmt: skip
    yield counters("ringfence_policy_loads", "Attempts to load policies.", "result",
                   {"loaded": 0, "refused": 0, **reloads})  # fmt: skip


# -- what leaves the agent -------------------------------------------------------


def output(writers: Sequence[LineWriter], stream: StreamServer | None, redacted: int) -> Iterator[Metric]:
    """Lines, and the clients of the local socket."""
    lines = CounterMetricFamily("ringfence_output_lines", "JSON lines written.", labels=["destination"])
    dropped = CounterMetricFamily(
        "ringfence_output_lines_dropped", "JSON lines lost.", labels=["destination", "reason"]
    )
    for writer in writers:
        lines.add_metric([writer.name], writer.written)
        for reason, count in {**dict.fromkeys(_LOST_LINES, 0), **writer.dropped}.items():
            dropped.add_metric([writer.name, reason], count)
    yield lines
    yield dropped
    clients = stream.clients if stream else 0
    lost = {"queue_full": stream.lost if stream else 0, "slow_client": stream.missed if stream else 0}
    yield gauge("ringfence_stream_clients", "Clients of the local socket.", {}, clients)
    yield counters(
        "ringfence_stream_records_lost", "Records that a client of the socket did not get.", "reason", lost
    )
    yield counter("ringfence_records_redacted", "Records in which something secret was hidden.", {}, redacted)


def receivers(senders: Sequence[Sender], lost: Iterable[tuple[str, str, int]]) -> Iterator[Metric]:
    """Receivers of alerts. Their names hold a hash of the address, never the address."""
    yield from _queues(senders)
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
    )
    for sender in senders:
        sent.add_metric([sender.name], sender.sent)
        unsynced.add_metric([sender.name], sender.spool.sync_errors)
        for reason, count in (dict.fromkeys(RETRY_REASONS, 0) | dict(sender.retries)).items():
            retries.add_metric([sender.name, reason], count)
    never = CounterMetricFamily(
        "ringfence_receiver_lost", "Alerts that it will never get.", labels=["receiver", "reason"]
    )
    for receiver, reason, count in lost:
        never.add_metric([receiver, reason], count)
    yield from (sent, unsynced, retries, never)


def _queues(senders: Sequence[Sender]) -> Iterator[Metric]:
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
        for sender in senders:
            family.add_metric([sender.name], float(read(sender)))
        yield family


# -- the sources that identify containers and pods -------------------------------


def enrichment_errors(errors: Mapping[str, int]) -> Metric:
    """Requests to runtimes that failed, by source."""
    return counters("ringfence_enrichment_errors", "Questions to a runtime that failed.", "source", errors)


def pod_watch(watch: PodWatch | None, pods: Sized | None) -> Iterator[Metric]:
    """The watch of the API server; the families are empty where none is followed."""
    for name, text, value in (
        ("ringfence_pod_watch_up", "1 while the API server is followed.", float(watch.up) if watch else None),
        ("ringfence_pod_watch_pods", "Pods of this node that it told of.",
         float(len(pods)) if pods is not None else None),
        ("ringfence_pod_watch_last_heard_timestamp_seconds", "When it last said something.",
         watch.last_heard if watch else None),
    ):  # fmt: skip
        family = GaugeMetricFamily(name, text, labels=[])
        if value is not None:
            family.add_metric([], value)
        yield family
    restarts = dict(watch.restarts) if watch else {}
    yield counters(
        "ringfence_pod_watch_restarts", "Times that it was asked anew, by why.", "reason", restarts
    )
    usable = {"yes": watch.used, "no": watch.unusable} if watch else {}
    yield counters(
        "ringfence_pod_watch_events", "What the watch told, by whether it could be used.", "usable", usable
    )


# -- the kernel ------------------------------------------------------------------


class KernelMetrics:
    """Emitted and dropped records, programs, maps and rings, read from the kernel at each scrape."""

    def __init__(self, kernel: Kernel, *, timed: bool) -> None:
        """`timed`: this agent has the kernel count the runs of BPF programs."""
        self._kernel, self._timed = kernel, timed

    def samples(self) -> Iterator[Metric]:
        """The families of one scrape."""
        yield self._emitted()
        yield self._dropped()
        yield from self._programs()
        yield from self._maps()
        yield from self._rings()
        skipped = self._kernel.skipped
        absent = sum(skip.absent for skip in skipped)
        hooks = GaugeMetricFamily("ringfence_hooks", "Places where programs shall be.", labels=["state"])
        hooks.add_metric(["attached"], len(self._kernel.attached))
        hooks.add_metric(["absent"], absent)
        hooks.add_metric(["skipped"], len(skipped) - absent)
        yield hooks

    def _emitted(self) -> Metric:
        family = CounterMetricFamily(
            "ringfence_events_emitted", "Records that the kernel sent.", labels=["event"]
        )
        emitted = self._kernel.map("emitted").all_sums()
        sums = {int.from_bytes(key, "little"): total[0] for key, total in emitted}
        for kind in EventKind:
            if kind:
                family.add_metric([kind.label], sums.get(kind, 0))
        return family

    def _dropped(self) -> Metric:
        family = CounterMetricFamily(
            "ringfence_events_dropped",
            "Records or facts that the kernel could not send or keep.",
            labels=["event", "reason"],
        )
        totals: Counter[tuple[str, str]] = Counter({("none", reason.label): 0 for reason in Drop})
        for (event, reason), count in self._kernel.losses.totals().items():
            totals[event_label(event), reason_label(reason)] += count
        for labels, count in totals.items():
            family.add_metric(labels, count)
        return family

    def _programs(self) -> Iterator[Metric]:
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
        for program in self._kernel.program_stats():
            misses.add_metric([program.name], program.misses)
            runs.add_metric([program.name], program.run_count)
            seconds.add_metric([program.name], program.run_time_ns / 1e9)
        yield from (runs, seconds, misses)
        yield gauge("ringfence_program_stats_enabled", "1 when this agent has BPF programs timed.", {},
                    int(self._timed))  # fmt: skip

    def _maps(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily("ringfence_map_entries", "Entries in a BPF map.", labels=["map"])
        most = GaugeMetricFamily(
            "ringfence_map_max_entries", "Entries that a BPF map can hold.", labels=["map"]
        )
        for name in _FILLED:
            bpf_map = self._kernel.map(name)
            entries.add_metric([name], bpf_map.fill())
            most.add_metric([name], bpf_map.max_entries)
        yield entries
        yield most

    def _rings(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily(
            "ringfence_ring_pending_bytes", "Bytes in a ring that wait.", labels=["ring"]
        )
        size = GaugeMetricFamily("ringfence_ring_size_bytes", "Size of a ring.", labels=["ring"])
        for name, ring in (("alerts", self._kernel.alerts), ("activity", self._kernel.activity)):
            pending.add_metric([name], ring.pending())
            size.add_metric([name], self._kernel.map(name).max_entries)
        yield pending
        yield size


def losses_of_predecessor(lost: Mapping[tuple[int, int], int]) -> Metric:
    """Records that the earlier agent's programs lost, by event and reason."""
    family = CounterMetricFamily(
        "ringfence_takeover_dropped",
        "What the agent before this one could not send or keep.",
        labels=["event", "reason"],
    )
    for (event, reason), count in lost.items():
        family.add_metric([event_label(event), reason_label(reason)], count)
    return family


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
