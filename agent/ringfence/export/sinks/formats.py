# SPDX-License-Identifier: Apache-2.0
"""An alert in the words of others: Elastic Common Schema 9.4, OCSF 1.2 (Detection Finding).

Pure functions of the native record, which is what waits in the queues. What the other schema has no field
for is kept below `ringfence` (ECS) or `unmapped` (OCSF): nothing is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ringfence import __version__
from ringfence.severity import number_of

__all__ = ["FORMATS", "headline", "milliseconds", "to_ecs", "to_ocsf"]

Record = Mapping[str, Any]
_STOPPED = ("denied", "killed")
ECS_VERSION, OCSF_VERSION = "9.4.0", "1.2.0"


def milliseconds(record: Record) -> int:
    """When it happened, since the epoch."""
    try:
        return int(datetime.fromisoformat(str(record.get("time"))).timestamp() * 1000)
    except ValueError:
        return 0


def headline(record: Record) -> str:
    """One line that a person understands: what, by whom, what became of it."""
    rule, container = record.get("rule") or {}, record.get("container") or {}
    process = record.get("process") or {}
    where = "/".join(str(container[key]) for key in ("namespace", "pod", "name") if container.get(key))
    what = rule.get("title") or rule.get("id") or record.get("event") or "alert"
    who = process.get("exe") or process.get("comm") or "?"
    whom = where or str(container.get("id") or "an unknown container")[:40]
    return f"{what}: {who} in {whom}: {record.get('outcome', '?')}"


def _filled(record: dict[str, Any]) -> dict[str, Any]:
    """Without fields that are empty, at any depth."""
    found = {}
    for key, value in record.items():
        value = _filled(value) if isinstance(value, dict) else value
        if value not in (None, "", {}, []):
            found[key] = value
    return found


def _category(event: str) -> list[str]:
    kind = event.partition(".")[0]
    more = {"file": "file", "net": "network", "unix": "network", "process": "process", "exec": "process"}
    return ["intrusion_detection", more[kind]] if kind in more else ["intrusion_detection", "process"]


def to_ecs(record: Record) -> dict[str, Any]:
    """https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html"""
    rule, process = record.get("rule") or {}, record.get("process") or {}
    stopped = record.get("outcome") in _STOPPED
    extra = ("action", "outcome", "mechanism", "allow", "details", "notes", "suppressed", "generation")
    return _filled({
        "@timestamp": record.get("time"),
        "message": headline(record),
        "ecs": {"version": ECS_VERSION},
        "agent": {"type": "ringfence", "version": __version__},
        "event": {
            "id": record.get("id"),
            "kind": "alert",
            "category": _category(str(record.get("event", ""))),
            "type": ["denied" if stopped else "info"],
            "action": record.get("event"),
            # of the action that the event tells of: an attempt that was stopped failed
            "outcome": "failure" if stopped else "unknown",
            "severity": number_of(record.get("severity")),
            "module": "ringfence",
            "dataset": "ringfence.alert",
            "reason": rule.get("title"),
        },
        "rule": {
            "id": rule.get("id"),
            "name": rule.get("title") or rule.get("id"),
            "ruleset": rule.get("policy"),
            "reference": f"{rule.get('file')}:{rule.get('line')}" if rule.get("file") else "",
        },
        "threat": _ecs_threat(rule.get("attack") or []),
        "process": _ecs_process(process),
        "user": {"id": str(process.get("uid", ""))},
        "host": {"name": record.get("node"), "hostname": record.get("node")},
        **_ecs_container(record.get("container") or {}),
        "ringfence": {key: record[key] for key in extra if key in record}
        | {"ancestry": process.get("ancestry"), "mode": rule.get("mode")},
    })  # fmt: skip


def _ecs_threat(techniques: list[str]) -> dict[str, Any]:
    parents = list(dict.fromkeys(technique.partition(".")[0] for technique in techniques))
    below = [technique for technique in techniques if "." in technique]
    if not parents:
        return {}
    return {
        "framework": "MITRE ATT&CK",
        "technique": {
            "id": parents,
            "reference": [f"https://attack.mitre.org/techniques/{parent}/" for parent in parents],
            "subtechnique": {"id": below},
        },
    }


def _ecs_process(process: Record) -> dict[str, Any]:
    args = process.get("args") or []
    parent: Record = next(iter(process.get("ancestry") or []), {})
    return {
        "pid": process.get("pid"),
        "vpid": process.get("vpid"),
        "thread": {"id": process.get("tid")},
        "name": process.get("comm"),
        "executable": process.get("exe"),
        "args": args,
        "args_count": len(args) or None,
        "command_line": " ".join(args),
        "parent": {"pid": parent.get("pid"), "name": parent.get("comm"), "executable": parent.get("exe")},
    }


def _ecs_container(container: Record) -> dict[str, Any]:
    image, _, tag = _image(container)
    orchestrator = {
        "type": "kubernetes",
        "namespace": container.get("namespace"),
        "resource": {
            "type": "pod",
            "name": container.get("pod"),
            "id": container.get("pod_uid"),
            "parent": {"type": _owner(container)[0]},
        },
    }
    # ECS has no field for the posture, and one for the privileged bit
    return {
        "container": {
            "id": container.get("id"),
            "name": container.get("name"),
            "runtime": container.get("runtime"),
            "image": {"name": image, "tag": [tag] if tag else [], "hash": {"all": _digests(container)}},
            "labels": container.get("labels"),
            "security_context": {"privileged": container.get("privileged")},
        },
        "orchestrator": orchestrator if container.get("pod") else {},
    }


def _image(container: Record) -> tuple[str, str, str]:
    """Name, digest and tag of `registry:5000/name:tag@sha256:...`."""
    name, _, digest = str(container.get("image") or "").partition("@")
    head, colon, tag = name.rpartition(":")
    return (head, digest, tag) if colon and "/" not in tag else (name, digest, "")


def _digests(container: Record) -> list[str]:
    found = str(container.get("image_digest") or "").rpartition("@")[2] or _image(container)[1]
    return [found] if found else []


def _owner(container: Record) -> tuple[str, str]:
    kind, _, name = str(container.get("owner") or "").partition("/")
    return kind, name


def to_ocsf(record: Record) -> dict[str, Any]:
    """https://schema.ocsf.io/1.2.0/classes/detection_finding, profiles container and security_control."""
    rule = record.get("rule") or {}
    stopped = record.get("outcome") in _STOPPED
    attacks = [_ocsf_attack(technique) for technique in rule.get("attack") or []]
    return _filled({
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401,
        "time": milliseconds(record),
        "severity_id": number_of(record.get("severity")),
        "severity": record.get("severity"),
        "action_id": 2 if stopped else 1,
        "disposition_id": 2 if stopped else 15,
        "status_id": 1,
        "message": headline(record),
        "attacks": attacks,
        "metadata": {
            "version": OCSF_VERSION,
            "uid": record.get("id"),
            "profiles": ["container", "security_control"],
            "product": {"name": "Ringfence", "vendor_name": "Ringfence", "version": __version__},
        },
        "finding_info": _ocsf_finding(record, attacks),
        "evidences": [_filled({"process": _ocsf_process(record), "data": record.get("details")})],
        "remediation": {"desc": record["allow"]} if record.get("allow") else {},
        "resources": _ocsf_resources(record),
        "unmapped": {
            key: record.get(key) for key in ("node", "mechanism", "outcome", "action", "notes", "suppressed")
        } | {"rule": rule, "ancestry": (record.get("process") or {}).get("ancestry")},
    })  # fmt: skip


def _ocsf_finding(record: Record, attacks: list[dict[str, Any]]) -> dict[str, Any]:
    rule = record.get("rule") or {}
    analytic = {"type_id": 1, "type": "Rule", "name": rule.get("id"), "uid": rule.get("id")}
    return {
        "uid": record.get("id") or "unknown",
        "title": rule.get("title") or rule.get("id") or record.get("event") or "alert",
        "created_time": milliseconds(record),
        "attacks": attacks,
        "types": [record.get("event")],
        "analytic": {**analytic, "category": rule.get("policy")},
    }


def _ocsf_attack(technique: str) -> dict[str, Any]:
    parent, dot, _ = technique.partition(".")
    below = {"sub_technique": {"uid": technique}} if dot else {}
    return {"technique": {"uid": parent}, "version": "15.1", **below}


def _ocsf_process(record: Record) -> dict[str, Any]:
    process, container = record.get("process") or {}, record.get("container") or {}
    exe = str(process.get("exe") or "")
    parent: Record = next(iter(process.get("ancestry") or []), {})
    image, digest, tag = _image(container)
    return {
        "pid": process.get("pid"),
        "namespace_pid": process.get("vpid"),
        "tid": process.get("tid"),
        "name": process.get("comm"),
        "cmd_line": " ".join(process.get("args") or []),
        "file": {"name": exe.rpartition("/")[2], "path": exe, "type_id": 1} if exe else {},
        "user": {"uid": str(process.get("uid", ""))},
        "lineage": [ancestor.get("exe") for ancestor in process.get("ancestry") or [] if ancestor.get("exe")],
        "parent_process": {"pid": parent.get("pid"), "name": parent.get("comm")},
        "container": {
            "uid": container.get("id"),
            "name": container.get("name"),
            "runtime": container.get("runtime"),
            "pod_uuid": container.get("pod_uid"),
            "orchestrator": "kubernetes" if container.get("pod") else "",
            "image": {"name": image, "tag": tag, "uid": digest or image} if image else {},
        },
    }


def _ocsf_resources(record: Record) -> list[dict[str, Any]]:
    container = record.get("container") or {}
    labels = [f"{key}={value}" for key, value in (container.get("labels") or {}).items()]
    resource = {
        "type": "pod" if container.get("pod") else "container",
        "name": container.get("pod") or container.get("name") or container.get("id"),
        "uid": container.get("pod_uid") or container.get("id"),
        "namespace": container.get("namespace"),
        "labels": labels,
    }
    return [found] if (found := _filled(resource)) else []


FORMATS: Mapping[str, Callable[[Record], Mapping[str, Any]]] = {
    "native": lambda record: record,
    "ecs": to_ecs,
    "ocsf": to_ocsf,
}
