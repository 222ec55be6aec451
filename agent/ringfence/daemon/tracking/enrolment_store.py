# SPDX-License-Identifier: Apache-2.0
"""The enrolment requests of runtimes, kept on disk for the next agent of this node.

A container whose cgroup matches no pattern, and the policies it chose, are known from its
enrolment request only. The state directory, which belongs to root, holds one small file per
container, and the policy files that came with requests. Both are removed with the container; a
shared policy file, with the last of its users.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.containers.enrich import safejson
from ringfence.containers.model import Enrichment, Facts
from ringfence_linux.atomicfile import replace_file

__all__ = ["EnrolmentRecord", "EnrolmentStore"]

_FACTS = ("source", "runtime", "handler", "name", "image", "image_id", "namespace", "pod", "pod_uid")


class EnrolmentRecord(NamedTuple):
    """One container. `chosen` may hold keys of files."""

    cgroup_id: int
    path: str
    name: str
    facts: Facts
    chosen: tuple[str, ...]


class EnrolmentStore:
    """The directory. A failed write is no error: the enrolment itself matters more."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._users: dict[str, set[int]] = {}  # key of a file -> the containers that chose it

    def keep(self, record: EnrolmentRecord) -> None:
        """Store a container, or replace what is stored of it."""
        facts = record.facts
        known = {name: getattr(facts, name) for name in _FACTS}
        body = {
            "path": record.path,
            "name": record.name,
            "chosen": list(record.chosen),
            "enrichment": str(facts.enrichment),
            "facts": known | {"labels": dict(facts.labels)},
        }
        self._write(str(record.cgroup_id), json.dumps(body).encode())
        self._note(record)

    def keep_file(self, key: str, name: str, data: bytes) -> None:
        """Store a policy file by its key."""
        self._write(_file_of(key), json.dumps({"name": name}).encode() + b"\n" + data)

    def forget(self, cgroup_id: int) -> None:
        """Remove a container that is gone."""
        with suppress(OSError):
            (self._directory / str(cgroup_id)).unlink()
        for key in [key for key, users in self._users.items() if cgroup_id in users]:
            self._users[key].discard(cgroup_id)
            self.release(key)

    def release(self, key: str) -> None:
        """Remove a file that no container has chosen, after all."""
        if not self._users.get(key):
            self._users.pop(key, None)
            with suppress(OSError):
                (self._directory / _file_of(key)).unlink()

    def file(self, key: str) -> tuple[str, bytes] | None:
        """Name and text of a stored file."""
        try:
            head, _, data = (self._directory / _file_of(key)).read_bytes().partition(b"\n")
            return safejson.text(safejson.parse(head), "name") or key, data
        except (OSError, safejson.Unusable):
            return None

    def records(self) -> list[EnrolmentRecord]:
        """Every stored container that can be read. Files that none of them chose are removed."""
        found: list[EnrolmentRecord] = []
        files: set[str] = set()
        for entry in sorted(self._directory.iterdir()) if self._directory.is_dir() else ():
            if not entry.name.isdecimal():
                files.add(entry.name)
                continue
            with suppress(OSError, safejson.Unusable, ValueError):
                found.append(_record(int(entry.name), safejson.read(entry)))
        for record in found:
            self._note(record)
        wanted = {_file_of(key) for record in found for key in record.chosen}
        for name in files - wanted:
            with suppress(OSError):
                (self._directory / name).unlink()
        return found

    def _note(self, record: EnrolmentRecord) -> None:
        for key in record.chosen:
            if ":" in key:
                self._users.setdefault(key, set()).add(record.cgroup_id)

    def _write(self, name: str, data: bytes) -> None:
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._directory / name, data)


def _file_of(key: str) -> str:
    return key.replace(":", "-")


def _record(cgroup_id: int, body: Any) -> EnrolmentRecord:
    facts = body.get("facts") if isinstance(body, dict) else None
    known: Mapping[str, Any] = {name: safejson.text(facts, name) for name in _FACTS}
    labels = dict(safejson.labels(facts.get("labels"))) if isinstance(facts, dict) else {}
    chosen = tuple(word for word in safejson.children(body, "chosen") if isinstance(word, str))
    enrichment = Enrichment(safejson.text(body, "enrichment"))
    path, name = safejson.text(body, "path"), safejson.text(body, "name")
    return EnrolmentRecord(cgroup_id, path, name, Facts(enrichment, **known, labels=labels), chosen)
