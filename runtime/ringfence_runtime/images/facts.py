# SPDX-License-Identifier: Apache-2.0
"""Facts about a layer for the user: kept privileges (setuid, capabilities), and omitted entries."""

from __future__ import annotations

import os
from typing import Any

from ringfence_runtime.images import tar

__all__ = ["DEVICES", "LayerFacts"]

DEVICES = ("refuse", "skip", "make")
MAX_LISTED = 100
_GROUP_EXECUTE = 0o010
_CONTROL = frozenset((*range(32), 127))


class LayerFacts:
    """Counts, and the first names of the most relevant entries."""

    __slots__ = (
        "bytes",
        "capabilities",
        "devices",
        "devices_skipped",
        "dropped_xattrs",
        "entries",
        "odd_names",
        "opaque_root",
        "setuid",
        "setuid_count",
        "whiteouts",
    )

    def __init__(self) -> None:
        self.entries = self.bytes = self.whiteouts = self.odd_names = 0
        self.devices = self.devices_skipped = self.capabilities = self.setuid_count = 0
        self.setuid: list[str] = []
        self.dropped_xattrs: dict[str, int] = {}
        self.opaque_root = False

    def count(self, entry: tar.Entry) -> None:
        """Counts an entry that was created."""
        self.entries += 1
        if entry.kind == tar.REGULAR:
            self.bytes += entry.size
            setgid = entry.mode & 0o2000 and entry.mode & _GROUP_EXECUTE
            if entry.mode & 0o4000 or setgid:
                self.setuid_count += 1
                if len(self.setuid) < MAX_LISTED:
                    self.setuid.append(os.fsdecode(entry.name))
        if not entry.name.isascii() or not _CONTROL.isdisjoint(entry.name):
            self.odd_names += _is_odd(entry.name)

    def dropped(self, names: list[bytes]) -> None:
        """Counts omitted extended attributes by kind: the names are the image's own text."""
        for name in names:
            kind = name.partition(b".")[0].decode("ascii", "replace")
            key = kind if kind in ("security", "trusted", "system", "user") else "other"
            self.dropped_xattrs[key] = self.dropped_xattrs.get(key, 0) + 1

    def as_json(self) -> dict[str, Any]:
        """Returns the members for `layer.json`."""
        return {name: getattr(self, name) for name in self.__slots__}


def _is_odd(name: bytes) -> bool:
    """Returns True for control characters, or bytes that are not UTF-8."""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return not _CONTROL.isdisjoint(name)
