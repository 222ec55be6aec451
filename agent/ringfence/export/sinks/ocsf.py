# SPDX-License-Identifier: Apache-2.0
"""An alert as OCSF 1.8, Detection Finding. Fields without an attribute are kept in `unmapped`."""

from __future__ import annotations

from typing import Any

from ringfence import __version__
from ringfence.export.sinks.native import (
    STOPPED,
    Record,
    filled,
    headline,
    image_of,
    milliseconds,
    part,
    rest,
)
from ringfence.severity import number_of

__all__ = ["OCSF_VERSION", "to_ocsf"]

OCSF_VERSION = "1.8.0"
#: of severity_id, from 1 on
_CAPTIONS = ("Informational", "Low", "Medium", "High", "Critical")
#: fields of a native alert that an attribute of the schema contains completely
_TOLD = frozenset(
    f"{above}{name}"
    for above, names in {
        "": ("time", "event", "kind", "id", "details", "allow", "labels"),
        "process.": ("pid", "tid", "vpid", "comm", "exe", "args", "uid"),
        "container.": ("id", "name", "runtime", "image", "pod", "pod_uid", "namespace", "labels"),
    }.items()
    for name in names
)


def to_ocsf(record: Record) -> dict[str, Any]:
    """https://schema.ocsf.io/1.8.0/classes/detection_finding, profiles container and security_control."""
    rule = part(record, "rule")
    stopped = record.get("outcome") in STOPPED
    attacks = [_attack(technique) for technique in rule.get("attack") or []]
    return filled({
        "activity_id": 1,
        "activity_name": "Create",
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "type_uid": 200401,
        "time": milliseconds(record),
        "severity_id": number_of(record.get("severity")),
        "severity": _CAPTIONS[number_of(record.get("severity")) - 1],
        "is_alert": True,
        "action_id": 2 if stopped else 3,  # denied, or observed
        "disposition_id": 2 if stopped else 15,
        "status_id": 1,
        "message": headline(record),
        "attacks": attacks,
        "metadata": {
            "version": OCSF_VERSION,
            "uid": record.get("id"),
            "original_time": record.get("time"),  # with its microseconds
            "profiles": ["container", "security_control"],
            "product": {"name": "Ringfence", "vendor_name": "Ringfence", "version": __version__},
            "labels": [f"{key}={value}" for key, value in part(record, "labels").items()],
        },
        "finding_info": _finding(record, attacks),
        "evidences": [filled({"process": _process(record), "data": record.get("details")})],
        "remediation": {"desc": record.get("allow")},
        "resources": _resources(part(record, "container")),
        "unmapped": rest(record, _TOLD),
    })  # fmt: skip


def _finding(record: Record, attacks: list[dict[str, Any]]) -> dict[str, Any]:
    rule = part(record, "rule")
    analytic = {"type_id": 1, "type": "Rule", "name": rule.get("id"), "uid": rule.get("id")}
    return {
        "uid": record.get("id") or "unknown",
        "title": rule.get("title") or rule.get("id") or record.get("event") or "alert",
        "created_time": milliseconds(record),
        "attacks": attacks,
        "types": [record.get("event")],
        "analytic": {**analytic, "category": rule.get("policy")},
    }


def _attack(technique: str) -> dict[str, Any]:
    parent, dot, _ = technique.partition(".")
    below = {"sub_technique": {"uid": technique}} if dot else {}
    return {"technique": {"uid": parent}, "version": "15.1", **below}


def _process(record: Record) -> dict[str, Any]:
    process, container = part(record, "process"), part(record, "container")
    exe = str(process.get("exe") or "")
    ancestry = process.get("ancestry") or []
    parent: Record = next(iter(ancestry), {})
    image = image_of(container)
    return {
        "pid": process.get("pid"),
        "namespace_pid": process.get("vpid"),
        "ptid": process.get("tid"),
        "name": process.get("comm"),
        "cmd_line": " ".join(process.get("args") or []),
        "file": {"name": exe.rpartition("/")[2], "path": exe, "type_id": 1} if exe else {},
        "user": {"uid": str(process.get("uid", ""))},
        "ancestry": [
            filled({"pid": one.get("pid"), "name": one.get("comm"), "path": one.get("exe")})
            for one in ancestry
        ],
        "parent_process": {"pid": parent.get("pid", process.get("ppid")), "name": parent.get("comm")},
        "container": {
            "uid": container.get("id"),
            "name": container.get("name"),
            "runtime": container.get("runtime"),
            "pod_uuid": container.get("pod_uid"),
            "orchestrator": "kubernetes" if container.get("pod") else "",
            "image": {
                "name": image.name,
                "labels": [image.tag] if image.tag else [],
                "uid": image.digest or image.name,
            }
            if image.name
            else {},
        },
    }


def _resources(container: Record) -> list[dict[str, Any]]:
    labels = [f"{key}={value}" for key, value in part(container, "labels").items()]
    resource = {
        "type": "pod" if container.get("pod") else "container",
        "name": container.get("pod") or container.get("name") or container.get("id"),
        "uid": container.get("pod_uid") or container.get("id"),
        "namespace": container.get("namespace"),
        "labels": labels,
    }
    return [found] if len(found := filled(resource)) > 1 else []
