# SPDX-License-Identifier: Apache-2.0
"""An alert as Elastic Common Schema 9.4. Fields without an equivalent are kept below `ringfence`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ringfence import __version__
from ringfence.export.sinks.native import STOPPED, Record, filled, headline, image_of, part, rest
from ringfence.severity import number_of

__all__ = ["ECS_VERSION", "to_ecs"]

ECS_VERSION = "9.4.0"
#: fields of a native alert that a field of the schema contains completely
_TOLD = frozenset(
    f"{above}{name}"
    for above, names in {
        "": ("time", "event", "kind", "id", "node", "labels"),
        "rule.": ("id", "title", "policy", "file", "line", "attack"),
        "process.": ("pid", "tid", "vpid", "comm", "exe", "args", "uid", "gid"),
        "container.": ("id", "name", "runtime", "image", "image_digest", "labels", "privileged"),
    }.items()
    for name in names
)
_TOLD_OF_PODS = frozenset(("container.namespace", "container.pod", "container.pod_uid"))
#: event.category by the event's first word, or its whole name; the others are actions of processes
_CATEGORIES = {
    "file": ("file", "open_by_handle_at", "mknod", "chmod", "symlink", "rename", "memfd_create"),
    "network": ("network", "unix", "socket"),
    "driver": ("module_load", "module_unload"),
    "configuration": ("sysctl", "settime", "setdomain"),
}
_CATEGORY_OF = {word: category for category, words in _CATEGORIES.items() for word in words}


def _category(event: str) -> list[str]:
    return ["intrusion_detection", _CATEGORY_OF.get(event.partition(".")[0], "process")]


def to_ecs(record: Record) -> dict[str, Any]:
    """https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html"""
    rule, process, container = (part(record, name) for name in ("rule", "process", "container"))
    stopped = record.get("outcome") in STOPPED
    in_pod = bool(container.get("pod"))
    return filled({
        "@timestamp": record.get("time"),
        "message": headline(record),
        "labels": record.get("labels"),
        "ecs": {"version": ECS_VERSION},
        "agent": {"type": "ringfence", "version": __version__},
        "event": {
            "id": record.get("id"),
            "kind": "alert",
            "category": _category(str(record.get("event", ""))),
            "type": ["denied" if stopped else "info"],
            "action": record.get("event"),
            # the outcome of the reported action: an attempt that was stopped failed
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
        "threat": _threat(rule.get("attack") or []),
        "process": _process(process),
        "user": {"id": _text(process.get("uid"))},
        "host": {"name": record.get("node"), "hostname": record.get("node")},
        "container": _container(container),
        "orchestrator": _orchestrator(record, container) if in_pod else {},
        "ringfence": rest(record, _TOLD | _TOLD_OF_PODS if in_pod else _TOLD),
    })  # fmt: skip


def _text(number: Any) -> str:
    return "" if number is None else str(number)


def _threat(techniques: Sequence[str]) -> dict[str, Any]:
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


def _process(process: Record) -> dict[str, Any]:
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
        "group": {"id": _text(process.get("gid"))},
        "parent": {
            "pid": parent.get("pid", process.get("ppid")),
            "name": parent.get("comm"),
            "executable": parent.get("exe"),
        },
    }


def _container(container: Record) -> dict[str, Any]:
    """ECS has no field for the posture, and one for the privileged bit."""
    image = image_of(container)
    return {
        "id": container.get("id"),
        "name": container.get("name"),
        "runtime": container.get("runtime"),
        "image": {
            "name": image.name,
            "tag": [image.tag] if image.tag else [],
            "hash": {"all": [image.digest] if image.digest else []},
        },
        "labels": container.get("labels"),
        "security_context": {"privileged": container.get("privileged")},
    }


def _orchestrator(record: Record, container: Record) -> dict[str, Any]:
    return {
        "type": "kubernetes",
        "cluster": {"name": part(record, "labels").get("cluster")},
        "namespace": container.get("namespace"),
        "resource": {
            "type": "pod",
            "name": container.get("pod"),
            "id": container.get("pod_uid"),
            "parent": {"type": str(container.get("owner") or "").partition("/")[0]},
        },
    }
