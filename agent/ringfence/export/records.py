# SPDX-License-Identifier: Apache-2.0
"""Events and alerts as records: plain values for JSON. All observed text is escaped here, and only here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ringfence.abi import EventKind
from ringfence.containers.model import Container
from ringfence.containers.tree import Ancestor
from ringfence.events import Event
from ringfence.export import wording
from ringfence.export.escape import arguments, escape
from ringfence.response.alert import Alert
from ringfence.response.describe import describe, notes, task_words
from ringfence.response.detectors import Finding
from ringfence.response.kill import KillResult

__all__ = [
    "VERSION",
    "alert_record",
    "ancestry_record",
    "boot_offset_ns",
    "container_record",
    "event_record",
    "finding_record",
    "plain",
    "response_record",
    "rule_record",
    "timestamp",
    "worded",
]

Record = dict[str, Any]
_PROCESS_KINDS = frozenset((EventKind.PROCESS_FORK, EventKind.PROCESS_EXEC, EventKind.PROCESS_EXIT))
_LABELS, _REASONS = 12, 3  # maximum shown of a container
#: labels in which runtimes repeat what other fields say
_REPEATED = (
    "io.kubernetes.", "io.cri-containerd.", "io.podman.annotations.", "pod-template-hash",
    "controller-revision-hash",
)  # fmt: skip
#: the version of the records' form; docs/reference/alert.schema.json says what may change within one
VERSION = 1


def boot_offset_ns() -> int:
    """Returns the offset from CLOCK_BOOTTIME to the time of day; it changes when the clock is set."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def timestamp(time_ns: int, offset_ns: int) -> str:
    """Returns a kernel time as ISO 8601 with microseconds; an impossible one becomes the epoch."""
    try:
        moment = datetime.fromtimestamp((time_ns + offset_ns) / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def event_record(event: Event, container: Container | None, offset_ns: int) -> Record:
    """Returns the record of an event that no rule matched."""
    lifecycle = event.event <= EventKind.CGROUP_RELEASE and event.event not in _PROCESS_KINDS
    return {
        "version": VERSION,
        "time": timestamp(event.time_ns, offset_ns),
        "event": event.kind.label,
        "kind": "lifecycle" if lifecycle else "activity",
        "container": _container(event, container),
        "process": _process(event),
        "details": plain(describe(event)),
        **_notes(notes(event)),
    }


def alert_record(alert: Alert, offset_ns: int, latency_ns: int) -> Record:
    """Returns the record of one verdict."""
    event, rule = alert.event, alert.rule
    details = plain({name: value for name, value in alert.details.items() if name != "args"})
    record: Record = {
        "version": VERSION,
        "time": timestamp(event.time_ns, offset_ns),
        "event": event.kind.label,
        "kind": "alert",
        "id": alert.id,
        "severity": alert.severity,
        "rule": _rule(alert),
        "action": alert.action.label,
        "outcome": str(alert.outcome),
        "mechanism": alert.mechanism.label,
        "container": _container(event, alert.container),
        "process": _process(event)
        | {
            "exe": _program(alert.exe),
            "args": arguments(alert.args.rstrip(b"\0")) if alert.args else [],
            "ancestry": ancestry_record(alert.ancestry),
        },
        "details": details,
        "latency_us": max(latency_ns, 0) // 1000,
        "allow": _pasted(alert.allow) if rule else "",
        "generation": event.generation,
        "node": escape(alert.node, 128),
        **_notes(alert.notes),
    }
    if alert.suppressed:
        record["suppressed"] = alert.suppressed
    if alert.response:
        record["response"] = response_record(alert.response)
    return worded(record)


def worded(record: Record) -> Record:
    """Returns an alert with its sentences: what was tried, how it ended, what to do."""
    return record | {
        "tried": wording.tried(str(record["event"]), record["details"]),
        "ended": wording.ended(record),
        "runbook": wording.runbook(record),
        "next": list(wording.next_steps(record)),
    }


def finding_record(found: Finding, node: str, offset_ns: int) -> Record:
    """Returns a detector's finding in the form of an alert: it uses the same outputs."""
    detector, event = found.detector, found.event
    process = _process(event) if event else {"pid": found.container.pid if found.container else 0, "comm": ""}
    record: Record = {
        "version": VERSION,
        "time": timestamp(found.time_ns, offset_ns),
        "event": "finding",
        "kind": "alert",
        "id": found.id,
        "severity": detector.severity,
        "rule": rule_record(detector.id, detector.title, "detectors", "", 0, detector.attack, "report"),
        "action": "alert",
        "outcome": "seen",
        "mechanism": "observe",
        "container": container_record(found.container) if found.container else {"id": "", "cgroup": 0},
        "process": process
        | {
            "exe": _program(found.exe),
            "args": arguments(found.args.rstrip(b"\0")) if found.args else [],
            "ancestry": ancestry_record(found.ancestry),
        },
        "details": plain(dict(found.details)),
        "latency_us": 0,
        "allow": f"to disable: `detectors: {{off: [{detector.id}]}}` in the agent's configuration",
        "generation": 0,
        "node": escape(node, 128),
    }
    record = worded(record) | {"tried": escape(detector.title), "ended": found.ended}
    return record if found.container else record | {"next": []}


def container_record(container: Container) -> Record:
    """Returns the known facts of a container. Names and labels are chosen by the workload."""
    posture = container.posture
    record: Record = {
        "id": escape(container.id, 128),
        "cgroup": container.cgroup_id,
        "runtime": _known(container.runtime),
        "handler": _known(container.handler),
        "name": _known(container.name),
        "image": _known(container.image),
        "image_digest": _known(container.image_digest).rpartition("@")[2],
        "namespace": _known(container.namespace),
        "pod": _known(container.pod),
        "pod_uid": _known(container.pod_uid),
        "owner": _known(container.owner),
        "labels": _labels(container),
        "privileged": container.privileged,
    }
    if posture is not None:
        record["posture"] = {
            "score": posture.score,
            "reasons": [escape(reason) for reason in posture.reasons[:_REASONS]],
        }
    return {key: value for key, value in record.items() if value not in ("", None, {})}


def _labels(container: Container) -> Record:
    own = [(k, v) for k, v in container.labels.items() if not k.startswith(_REPEATED)]
    return {escape(k, 128): escape(v, 256) for k, v in own[:_LABELS]}


def _program(exe: bytes) -> str:
    """Returns a program's path; one without a path was executed from memory."""
    return "(in memory)" if exe == b"/" else escape(exe)


def plain(value: Any) -> Any:
    """Returns details as JSON values: bytes and text are escaped, at any depth."""
    if isinstance(value, (bytes, str)):
        return escape(value)
    if isinstance(value, dict):
        return {escape(str(key), 128): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _known(text: str | None) -> str:
    return escape(text, 512) if text else ""


def _pasted(text: str) -> str:
    """Escapes lines meant to be copied into a policy: printable text and line ends stay unchanged."""
    return "\n".join(line if line.isprintable() else escape(line) for line in text.split("\n"))


def _notes(texts: Any) -> Record:
    return {"notes": list(texts)} if texts else {}


def _rule(alert: Alert) -> Record:
    rule = alert.rule
    if rule is None:
        return {"id": "", "number": alert.event.rule}
    return rule_record(rule.rule_id, rule.title, rule.policy, rule.file, rule.line, rule.attack, rule.mode)


def rule_record(
    rule: str, title: str, policy: str, file: str, line: int, attack: Sequence[str], mode: str
) -> Record:
    """Returns the record of a rule and its place; `file` is empty for built-in rules."""
    return {
        "id": rule,
        "title": escape(title),
        "policy": policy,
        "file": escape(file),
        "line": line,
        "attack": list(attack),
        "mode": mode,
    }


def ancestry_record(ancestry: Sequence[Ancestor]) -> list[Record]:
    """Returns the ancestry, the parent first."""
    return [
        {"pid": parent.pid, "comm": escape(parent.comm, 64)}
        | ({"exe": _program(parent.exe)} if parent.exe else {})
        for parent in ancestry
    ]


def response_record(answer: KillResult) -> Record:
    """Returns the record of user space's response to the event."""
    return {"pid": answer.pid, "outcome": str(answer.outcome), "error": answer.error}


def _container(event: Event, container: Container | None) -> Record:
    # An unknown container stays unknown; cgroup ids are never reused, so it can be looked up later.
    return container_record(container) if container else {"id": "", "cgroup": event.container}


def _process(event: Event) -> Record:
    """Returns the acting process. pid, tid and ppid are the host's; vpid is the container's."""
    return {
        "pid": event.pid,
        **({"tid": event.tid} if event.tid != event.pid else {}),
        "ppid": event.ppid,
        "vpid": event.vpid,
        "uid": event.uid,
        "gid": event.gid,
        "comm": escape(event.comm, 64),
        "facts": task_words(event.facts),
    }
