# SPDX-License-Identifier: Apache-2.0
"""Reading a native alert, for whoever writes it in other words: headline, image, what is left of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

__all__ = ["STOPPED", "Image", "Record", "filled", "headline", "image_of", "milliseconds", "part", "rest"]

Record = Mapping[str, Any]
STOPPED = ("denied", "killed")  # outcomes of a call that did not do what it was for


def part(record: Record, name: str) -> Record:
    """A mapping of the record; empty where there is none (what waits on disk may be of another version)."""
    found = record.get(name)
    return found if isinstance(found, Mapping) else {}


def milliseconds(record: Record) -> int:
    """When it happened, since the epoch."""
    try:
        return int(datetime.fromisoformat(str(record.get("time"))).timestamp() * 1000)
    except ValueError:
        return 0


def headline(record: Record) -> str:
    """One line that a person understands: what, by whom, what became of it."""
    rule, container, process = (part(record, name) for name in ("rule", "container", "process"))
    where = "/".join(str(container[key]) for key in ("namespace", "pod", "name") if container.get(key))
    what = rule.get("title") or rule.get("id") or record.get("event") or "alert"
    who = process.get("exe") or process.get("comm") or "?"
    whom = where or str(container.get("id") or "an unknown container")[:40]
    return f"{what}: {who} in {whom}: {record.get('outcome', '?')}"


class Image(NamedTuple):
    """`registry:5000/name:tag@sha256:...`, taken apart."""

    name: str
    tag: str
    digest: str


def image_of(container: Record) -> Image:
    """The image's name as it was asked for; its digest as it was pulled, if that is known."""
    name, _, digest = str(container.get("image") or "").partition("@")
    digest = str(container.get("image_digest") or "").rpartition("@")[2] or digest
    head, colon, tag = name.rpartition(":")
    return Image(head, tag, digest) if colon and "/" not in tag else Image(name, "", digest)


def filled(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without fields that are empty, at any depth."""
    found = {}
    for key, value in record.items():
        value = filled(value) if isinstance(value, Mapping) else value
        if value is not None and value != "" and value != {} and value != []:
            found[key] = value
    return found


def rest(record: Record, told: Collection[str], above: str = "") -> dict[str, Any]:
    """What `told` (dotted names) does not name, where it stands in the native alert: nothing is left out."""
    found = {}
    for key, value in record.items():
        name = f"{above}{key}"
        if name in told:
            continue
        found[key] = rest(value, told, f"{name}.") if isinstance(value, Mapping) else value
    return filled(found)
