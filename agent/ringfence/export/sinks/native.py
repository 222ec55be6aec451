# SPDX-License-Identifier: Apache-2.0
"""Reads a native alert for conversion to other formats: headline, image, remaining fields."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

__all__ = [
    "STOPPED", "Image", "Record", "filled", "headline", "image_of", "microseconds", "milliseconds", "part",
    "rest",
]  # fmt: skip

Record = Mapping[str, Any]
STOPPED = ("denied", "killed")  # outcomes of a call that had no effect


def part(record: Record, name: str) -> Record:
    """Returns a mapping of the record; empty if missing (a record on disk may be of another version)."""
    found = record.get(name)
    return found if isinstance(found, Mapping) else {}


def microseconds(record: Record) -> int:
    """Returns the time of the event in microseconds since the epoch."""
    try:
        return round(datetime.fromisoformat(str(record.get("time"))).timestamp() * 1_000_000)
    except ValueError:
        return 0


def milliseconds(record: Record) -> int:
    """Returns the time of the event in milliseconds since the epoch."""
    return microseconds(record) // 1000


def headline(record: Record) -> str:
    """Returns one readable line: the rule, the container and the outcome."""
    rule, container, process = (part(record, name) for name in ("rule", "container", "process"))
    where = "/".join(str(container[key]) for key in ("namespace", "pod", "name") if container.get(key))
    what = rule.get("title") or rule.get("id") or record.get("event") or "alert"
    who = process.get("exe") or process.get("comm") or "?"
    subject = where or str(container.get("id") or "an unknown container")[:40]
    return f"{what}: {who} in {subject}: {record.get('outcome', '?')}"


class Image(NamedTuple):
    """`registry:5000/name:tag@sha256:...`, taken apart."""

    name: str
    tag: str
    digest: str


def image_of(container: Record) -> Image:
    """Returns the image's name as requested, and its digest as pulled, if known."""
    name, _, digest = str(container.get("image") or "").partition("@")
    digest = str(container.get("image_digest") or "").rpartition("@")[2] or digest
    head, colon, tag = name.rpartition(":")
    return Image(head, tag, digest) if colon and "/" not in tag else Image(name, "", digest)


def filled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record without empty fields, at any depth."""
    found = {}
    for key, value in record.items():
        value = filled(value) if isinstance(value, Mapping) else value
        if value is not None and value != "" and value != {} and value != []:
            found[key] = value
    return found


def rest(record: Record, mapped: Collection[str], above: str = "") -> dict[str, Any]:
    """Returns the fields of the native alert that are not in `mapped` (dotted names): nothing is lost."""
    found = {}
    for key, value in record.items():
        name = f"{above}{key}"
        if name in mapped:
            continue
        found[key] = rest(value, mapped, f"{name}.") if isinstance(value, Mapping) else value
    return filled(found)
