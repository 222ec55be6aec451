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
    "memory_reserve",
    "output",
    "own_limits",
    "pod_watch",
    "policies",
    "reason_label",
    "receivers",
    "records",
    "unarmed",
]

RETRY_REASONS = (
    "connection",
    "timeout",
    "http_3xx",
    "http_4xx",
    "http_5xx",
    "headers",
    "disk_full",
    "file",
    "queue",
    "bug",
)
_LOST_LINES = ("slow", "closed", "disk_full", "error")
_FILLED = ("containers", "processes", "drops")  # hash maps that can fill up


class PolicyState(NamedTuple):
    """The policies in the kernel, and the result of the last attempt to change them."""

    generation: int = 0
    policies: int = 0
    rules: Mapping[tuple[str, str], int] = {}  # (action, mechanism) -> rules
    refused: Sequence[str] = ()  # the problems of a set that was refused after this one was loaded
    loaded_at: float = 0.0  # seconds since the epoch
    digest: str = ""  # of the files' content, the same on every node with the same policies


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
    yield gauge(
        "ringfence_capacity_used", "Entries in use in a bounded table or queue of the agent.", labels, used
    )
    yield gauge(
        "ringfence_capacity_limit", "Maximum entries of a bounded table or queue of the agent.", labels, limit
    )


def evicted(of: str, count: int) -> Metric:
    """Entries that were removed early, or rejected, because something was full."""
    return counter(
        "ringfence_capacity_evicted",
        "Entries removed early, or rejected, because a table or queue of the agent was full.",
        {"of": of},
        count,
    )


# -- the agent -------------------------------------------------------------------


def agent(stats: Stats, mode: str, *, ready: bool) -> Iterator[Metric]:
    """Version, start, mode, and the bugs that were survived."""
    yield gauge("ringfence_build_info", "Version of the agent; always 1.", {"version": __version__}, 1)
    yield gauge(
        "ringfence_ready", "1 if programs are attached and policies are in the kernel.", {}, int(ready)
    )
    yield gauge(
        "ringfence_startup_seconds",
        "Time from the start of the agent's process until it was ready.",
        {},
        stats.startup_seconds,
    )
    yield gauge(
        "ringfence_attach_seconds",
        "Time that attaching BPF programs took at the start.",
        {},
        stats.attach_seconds,
    )
    modes = GaugeMetricFamily("ringfence_mode", "1 for the configured mode of the agent.", labels=["mode"])
    for name in ("audit", "enforce", "policy"):
        modes.add_metric([name], name == mode)
    yield modes
    yield counters(
        "ringfence_handler_errors", "Bugs of the agent that were survived, by place.", "where", handler_errors
    )
    yield counters(
        "ringfence_thread_failures",
        "Threads of the agent that failed and were restarted.",
        "thread",
        thread_failures,
    )


def canary(seen: float, count: int) -> Iterator[Metric]:
    """`seen`: monotonic time of the last record; 0: there is no canary, and no such series."""
    if seen:
        yield gauge(
            "ringfence_canary_seconds",
            "Time since the last record of the canary, an operation each second.",
            {},
            time.monotonic() - seen,
        )
    yield counter("ringfence_canary_records", "Records of the canary that the agent received.", {}, count)


def memory_reserve(wanted: int, free: int) -> Iterator[Metric]:
    """Memory that is kept free for the kernel's entries of tasks; without a limit no samples."""
    reserve = GaugeMetricFamily(
        "ringfence_agent_memory_reserve_bytes",
        "Memory below the agent's limit that is to stay free for the kernel's entries of tasks.",
    )
    left = GaugeMetricFamily(
        "ringfence_agent_memory_free_bytes", "Free memory below the agent's limit; file cache is not free."
    )
    if wanted:
        reserve.add_metric([], wanted)
        left.add_metric([], free)
    yield from (reserve, left)


def unarmed(tasks: Mapping[str, int]) -> Metric:
    """Tasks in containers that no rule applies to yet, by the reason."""
    family = GaugeMetricFamily(
        "ringfence_unarmed_tasks",
        "Tasks in the cgroups of containers that no rule applies to yet, by reason.",
        labels=["reason"],
    )
    for reason, count in tasks.items():
        family.add_metric([reason], count)
    return family


def own_limits(
    memory: tuple[int, float], cpus: float, throttled_seconds: float, halvings: int
) -> Iterator[Metric]:
    """The agent's own limits; one that does not exist has no sample.

    `memory`: the limit in bytes (0: none) and the part of it that is used. `cpus` 0: no limit.
    """
    limit, part = memory
    size = GaugeMetricFamily("ringfence_agent_memory_limit_bytes", "Memory limit of the agent's cgroup.")
    ratio = GaugeMetricFamily(
        "ringfence_agent_memory_ratio", "Used part of the agent's memory limit, without file cache."
    )
    if limit:
        size.add_metric([], limit)
        ratio.add_metric([], part)
    share = GaugeMetricFamily("ringfence_agent_cpu_limit", "CPU limit of the agent's cgroup, in CPUs.")
    if cpus:
        share.add_metric([], cpus)
    yield from (size, ratio, share)
    yield counter(
        "ringfence_agent_throttled_seconds",
        "Time for which the CPU limit throttled the agent.",
        {},
        throttled_seconds,
    )
    yield gauge(
        "ringfence_activity_halvings",
        "How often the rate of activity records is halved at present.",
        {},
        halvings,
    )


# -- events and alerts -----------------------------------------------------------


def records(stats: Stats, unattributed: Mapping[str, int]) -> Iterator[Metric]:
    """Records of the rings, as they were received."""
    received = CounterMetricFamily(
        "ringfence_events", "Records received from the kernel, by event.", labels=["event"]
    )
    for kind in EventKind:
        if kind:
            received.add_metric([kind.label], stats.received[kind])
    yield received
    yield counters(
        "ringfence_decode_errors",
        "Records from the kernel that could not be decoded.",
        "reason",
        stats.decode_errors,
    )
    yield counters("ringfence_events_unattributed", "Records of no known container.", "reason", unattributed)


def alerts(stats: Stats) -> Iterator[Metric]:
    """Verdicts and findings, and the kills from user space."""
    family = CounterMetricFamily(
        "ringfence_alerts",
        "Alerts by rule and outcome of the call, suppressed ones included.",
        labels=["rule", "severity", "action", "outcome"],
    )
    for labels, count in list(stats.alerts.items()):
        family.add_metric(labels, count)
    yield family
    yield from stats.attempts.collect()
    yield from stats.container_alerts.collect()
    yield counters(
        "ringfence_alerts_suppressed",
        "Alerts that were counted but not written: repetitions, or above the rate limit.",
        "rule",
        stats.alerts_suppressed,
    )
    text = "Times that the node's clock was set by more than a second while the agent ran."
    yield counter("ringfence_clock_changes", text, {}, stats.clock_changes)
    latency = HistogramMetricFamily(
        "ringfence_alert_latency_seconds",
        "Time from the call in the kernel until its alert is handed to the output.",
    )
    latency.add_metric([], stats.alert_latency.cumulative(), stats.alert_latency.total)
    yield latency
    yield counters(
        "ringfence_responses", "Kills by the agent from user space, by result.", "result", stats.responses
    )


def policies(state: PolicyState, reloads: Mapping[str, int]) -> Iterator[Metric]:
    """The policies in the kernel, and the attempts to change them."""
    yield gauge(
        "ringfence_policy_generation",
        "Number of the set of policies in the kernel; 0: none.",
        {},
        state.generation,
    )
    yield gauge("ringfence_policies", "Policies in the kernel.", {}, state.policies)
    rules = GaugeMetricFamily(
        "ringfence_rules",
        "Rules in force, by effective action and mechanism; none: this node is blind to them.",
        labels=["action", "mechanism"],
    )
    for labels, count in state.rules.items():
        rules.add_metric(labels, count)
    yield rules
    yield gauge(
        "ringfence_policy_up_to_date",
        "0 while the policy files hold a set that was refused.",
        {},
        0 if state.refused else 1,
    )
    yield gauge(
        "ringfence_policy_problems", "Problems of the refused set of policies.", {}, len(state.refused)
    )
    yield gauge(
        "ringfence_policy_loaded_timestamp_seconds",
        "Time at which the set of policies in the kernel was loaded.",
        {},
        state.loaded_at,
    )
    yield counters(
        "ringfence_policy_loads",
        "Attempts to load policies, by result.",
        "result",
        {"loaded": 0, "refused": 0, **reloads},
    )


# -- what leaves the agent -------------------------------------------------------


def output(writers: Sequence[LineWriter], stream: StreamServer | None, redacted: int) -> Iterator[Metric]:
    """Lines, and the clients of the local socket."""
    lines = CounterMetricFamily(
        "ringfence_output_lines", "JSON lines written, by destination.", labels=["destination"]
    )
    dropped = CounterMetricFamily(
        "ringfence_output_lines_dropped",
        "JSON lines lost, by destination and reason.",
        labels=["destination", "reason"],
    )
    for writer in writers:
        lines.add_metric([writer.name], writer.written)
        for reason, count in {**dict.fromkeys(_LOST_LINES, 0), **writer.dropped}.items():
            dropped.add_metric([writer.name, reason], count)
    yield lines
    yield dropped
    clients = stream.clients if stream else 0
    lost = {"queue_full": stream.lost if stream else 0, "slow_client": stream.missed if stream else 0}
    yield gauge("ringfence_stream_clients", "Clients connected to the local socket.", {}, clients)
    yield counters(
        "ringfence_stream_records_lost",
        "Records that a client of the local socket did not get.",
        "reason",
        lost,
    )
    yield counter("ringfence_records_redacted", "Records in which a secret was hidden.", {}, redacted)


def receivers(senders: Sequence[Sender], lost: Iterable[tuple[str, str, int]]) -> Iterator[Metric]:
    """Receivers of alerts. Their names hold a hash of the address, never the address."""
    yield from _queues(senders)
    unsynced = CounterMetricFamily(
        "ringfence_receiver_sync_errors",
        "Times that the queue of a receiver could not be forced to disk.",
        labels=["receiver"],
    )
    sent = CounterMetricFamily(
        "ringfence_receiver_sent", "Alerts delivered to a receiver.", labels=["receiver"]
    )
    retries = CounterMetricFamily(
        "ringfence_receiver_retries",
        "Failed attempts to send to a receiver, which are repeated.",
        labels=["receiver", "reason"],
    )
    for sender in senders:
        sent.add_metric([sender.name], sender.sent)
        unsynced.add_metric([sender.name], sender.spool.sync_errors)
        for reason, count in (dict.fromkeys(RETRY_REASONS, 0) | dict(sender.retries)).items():
            retries.add_metric([sender.name, reason], count)
    never = CounterMetricFamily(
        "ringfence_receiver_lost",
        "Alerts that will never be delivered to a receiver.",
        labels=["receiver", "reason"],
    )
    for receiver, reason, count in lost:
        never.add_metric([receiver, reason], count)
    yield from (sent, unsynced, retries, never)


def _queues(senders: Sequence[Sender]) -> Iterator[Metric]:
    for name, text, read in (
        (
            "ringfence_receiver_up",
            "1 if the last attempt to send to a receiver succeeded.",
            lambda s: s.up is not False,
        ),
        (
            "ringfence_receiver_queue_records",
            "Alerts that wait for a receiver.",
            lambda s: s.spool.undelivered,
        ),
        ("ringfence_receiver_queue_bytes", "Size of the queue files of a receiver.", lambda s: s.spool.held),
        (
            "ringfence_receiver_queue_max_bytes",
            "Maximum size of the queue files of a receiver.",
            lambda s: s.spool.size_max,
        ),
        (
            "ringfence_receiver_queue_memory_records",
            "Alerts for a receiver that are not on disk yet.",
            lambda s: s.spool.in_memory,
        ),
        (
            "ringfence_receiver_last_sent_timestamp_seconds",
            "Time of the last delivery to a receiver.",
            lambda s: s.last_sent,
        ),
    ):
        family = GaugeMetricFamily(name, text, labels=["receiver"])
        for sender in senders:
            family.add_metric([sender.name], float(read(sender)))
        yield family


# -- the sources that identify containers and pods -------------------------------


def enrichment_errors(errors: Mapping[str, int]) -> Metric:
    """Requests to runtimes that failed, by source."""
    return counters(
        "ringfence_enrichment_errors", "Failed requests to container runtimes, by source.", "source", errors
    )


def pod_watch(watch: PodWatch | None, pods: Sized | None) -> Iterator[Metric]:
    """The watch of the API server; the families are empty where none is followed."""
    for name, text, value in (
        (
            "ringfence_pod_watch_up",
            "1 while the pods of the API server are followed.",
            float(watch.up) if watch else None,
        ),
        (
            "ringfence_pod_watch_pods",
            "Pods of this node that the API server reported.",
            float(len(pods)) if pods is not None else None,
        ),
        (
            "ringfence_pod_watch_last_event_timestamp_seconds",
            "Time of the last message of the watch of pods.",
            watch.last_heard if watch else None,
        ),
    ):
        family = GaugeMetricFamily(name, text, labels=[])
        if value is not None:
            family.add_metric([], value)
        yield family
    restarts = dict(watch.restarts) if watch else {}
    yield counters(
        "ringfence_pod_watch_restarts", "Restarts of the watch of pods, by reason.", "reason", restarts
    )
    usable = {"yes": watch.used, "no": watch.unusable} if watch else {}
    yield counters(
        "ringfence_pod_watch_events",
        "Events of the watch of pods, by whether they were usable.",
        "usable",
        usable,
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
        hooks = GaugeMetricFamily("ringfence_hooks", "Places for BPF programs, by state.", labels=["state"])
        hooks.add_metric(["attached"], len(self._kernel.attached))
        hooks.add_metric(["absent"], absent)
        hooks.add_metric(["skipped"], len(skipped) - absent)
        yield hooks

    def _emitted(self) -> Metric:
        family = CounterMetricFamily(
            "ringfence_events_emitted", "Records that the kernel sent, by event.", labels=["event"]
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
            "Records or facts that the kernel could not send or store, by event and reason.",
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
            "ringfence_program_runs", "Runs of a BPF program while runs were counted.", labels=["program"]
        )
        seconds = CounterMetricFamily(
            "ringfence_program_run_seconds",
            "Time spent in a BPF program while it was measured.",
            labels=["program"],
        )
        misses = CounterMetricFamily(
            "ringfence_program_misses",
            "Runs of a BPF program that the kernel skipped, as it ran on that CPU already.",
            labels=["program"],
        )
        for program in (stats := self._kernel.program_stats()):
            misses.add_metric([program.name], program.misses)
            runs.add_metric([program.name], program.run_count)
            seconds.add_metric([program.name], program.run_time_ns / 1e9)
        yield from (runs, seconds, misses)
        yield counters(
            "ringfence_decisions_skipped",
            "Calls that passed undecided, as the kernel skipped a program, by hook.", "hook",
            self._kernel.skipped_decisions(stats),
        )  # fmt: skip
        yield gauge(
            "ringfence_program_stats_enabled",
            "1 if the agent has the kernel measure BPF programs.",
            {},
            int(self._timed),
        )

    def _maps(self) -> Iterator[Metric]:
        entries = GaugeMetricFamily("ringfence_map_entries", "Entries in a BPF map.", labels=["map"])
        most = GaugeMetricFamily("ringfence_map_max_entries", "Maximum entries of a BPF map.", labels=["map"])
        for name in _FILLED:
            bpf_map = self._kernel.map(name)
            entries.add_metric([name], bpf_map.fill())
            most.add_metric([name], bpf_map.max_entries)
        yield entries
        yield most

    def _rings(self) -> Iterator[Metric]:
        pending = GaugeMetricFamily(
            "ringfence_ring_pending_bytes", "Unread bytes in a ring buffer.", labels=["ring"]
        )
        size = GaugeMetricFamily("ringfence_ring_size_bytes", "Size of a ring buffer.", labels=["ring"])
        for name, ring in (("alerts", self._kernel.alerts), ("activity", self._kernel.activity)):
            pending.add_metric([name], ring.pending())
            size.add_metric([name], self._kernel.map(name).max_entries)
        yield pending
        yield size


def losses_of_predecessor(lost: Mapping[tuple[int, int], int]) -> Metric:
    """Records that the earlier agent's programs lost, by event and reason."""
    family = CounterMetricFamily(
        "ringfence_takeover_dropped",
        "Records that the programs of an earlier agent lost, by event and reason.",
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
