# SPDX-License-Identifier: Apache-2.0
"""The lines of /proc/PID/mountinfo: proc_pid_mountinfo(5). `parse` is pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["MountLine", "parse", "read"]

_OCTAL = re.compile(r"\\([0-7]{3})")
# In a separate cgroup namespace, as in a pod, the root of a cgroup hierarchy is named "/../..".
_WHOLE = re.compile(r"/(\.\./?)*\Z")


class MountLine(NamedTuple):
    """One mount. Bytes that are not UTF-8 are surrogates if the text was read that way."""

    id: str
    device: str  # MAJOR:MINOR of the superblock
    root: str  # the mounted directory of the filesystem
    target: str  # the mount point
    options: frozenset[str]  # of the mount
    fstype: str
    source: str
    super_options: frozenset[str]

    @property
    def whole(self) -> bool:
        """True if the root of its filesystem is mounted."""
        return _WHOLE.match(self.root) is not None

    @property
    def writable(self) -> bool:
        """True if neither the mount nor the superblock is read-only."""
        return "ro" not in self.options and "ro" not in self.super_options


def parse(text: str) -> Iterator[MountLine]:
    """Yields the valid lines in order; others are skipped."""
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            continue
        root, target, source = (_unescaped(part) for part in (fields[3], fields[4], tail[1]))
        options, super_options = (frozenset(part.split(",")) for part in (fields[5], tail[2]))
        yield MountLine(fields[0], fields[2], root, target, options, tail[0], source, super_options)


def read(process: Path = Path("/proc/self")) -> Iterator[MountLine]:
    """Yields the mounts of a process, by its directory in a procfs. Raises OSError."""
    return parse((process / "mountinfo").read_text(errors="surrogateescape"))


def _unescaped(text: str) -> str:
    """Decodes space, tab, newline, backslash and #, which are written as octal numbers."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
