# SPDX-License-Identifier: Apache-2.0
"""Events of custom probes, and alerts on them, as records: the same keys as those of the agent's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ringfence.containers.model import Container
from ringfence.containers.tree import Ancestor, Process
from ringfence.export.escape import arguments, escape
from ringfence.export.records import (
    VERSION,
    ancestry_record,
    container_record,
    plain,
    response_record,
    rule_record,
    timestamp,
    worded,
)
from ringfence.policy.model import Policy
from ringfence.policy.probe_rules import ProbeRule
from ringfence.probes.live import ProbeEvent
from ringfence.response.kill import KillResult

__all__ = ["Verdict", "event_record", "verdict_record"]

Record = dict[str, Any]


class Verdict(NamedTuple):
    """A rule that matched an event, and the action taken."""

    id: str
    event: ProbeEvent
    container: Container
    policy: Policy
    rule: ProbeRule
    mode: str
    outcome: str
    process: Process | None
    ancestry: Sequence[Ancestor]
    generation: int
    node: str
    response: KillResult | None = None


def event_record(event: ProbeEvent, container: Container | None, offset_ns: int) -> Record:
    """Returns the record of one event, with or without a container."""
    decoded = event.decoded
    return {
        "version": VERSION,
        "time": timestamp(decoded.time_ns, offset_ns),
        "event": event.probe.label,
        "kind": "activity",
        "container": container_record(container) if container else {"id": "", "cgroup": decoded.container},
        **_process(event),
        "details": _details(event),
    }


def _details(event: ProbeEvent) -> Mapping[str, Any]:
    return {name: plain(value) for name, value in zip(event.probe.fields, event.decoded.values, strict=True)}


def _process(event: ProbeEvent) -> Record:
    """Returns the process of the event, if the probe records it."""
    decoded = event.decoded
    if not decoded.pid:
        return {}
    found: Record = {"pid": decoded.pid}
    if decoded.tid:
        found |= {"tid": decoded.tid, "comm": escape(decoded.comm, 64)}
    return {"process": found}


def verdict_record(verdict: Verdict, offset_ns: int, latency_ns: int) -> Record:
    """Returns the record of one alert."""
    event, rule, known = verdict.event, verdict.rule, verdict.process
    record = event_record(event, verdict.container, offset_ns)
    process = dict(record.get("process") or {})
    if known is not None:
        process |= {"ppid": known.ppid, "uid": known.uid, "exe": escape(known.exe)}
        process["args"] = arguments(known.args.rstrip(b"\0")) if known.args else []
        process.setdefault("comm", escape(known.comm.partition(b"\0")[0], 64))
    process["ancestry"] = ancestry_record(verdict.ancestry)
    record |= {
        "kind": "alert",
        "id": verdict.id,
        "severity": rule.severity,
        "rule": rule_record(
            rule.id,
            rule.title,
            verdict.policy.name,
            rule.place.file,
            rule.place.line,
            rule.attack,
            verdict.mode,
        ),
        "action": rule.action.label,
        "outcome": verdict.outcome,
        "mechanism": "observe",
        "process": process,
        "latency_us": max(latency_ns, 0) // 1000,
        "allow": escape(f"an exception of rule {rule.id} at {rule.place.file}:{rule.place.line}"),
        "generation": verdict.generation,
        "node": escape(verdict.node, 128),
    }
    if verdict.response is not None:
        record["response"] = response_record(verdict.response)
    return worded(record)
