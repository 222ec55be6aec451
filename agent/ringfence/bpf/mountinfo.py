# SPDX-License-Identifier: Apache-2.0
"""The lines of /proc/PID/mountinfo: proc_pid_mountinfo(5). `parse` is pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["MountLine", "parse", "read"]

_OCTAL = re.compile(r"\\([0-7]{3})")
# From a cgroup namespace of one's own, as in a pod, the root of a cgroup hierarchy is called "/../..".
_WHOLE = re.compile(r"/(\.\./?)*\Z")


class MountLine(NamedTuple):
    """One mount. Bytes that are no UTF-8 are surrogates, where the text was read so."""

    id: str
    device: str  # MAJOR:MINOR of the superblock
    root: str  # the directory of the filesystem that the mount shows
    target: str  # where it is seen
    options: frozenset[str]  # of the mount
    fstype: str
    source: str
    super_options: frozenset[str]

    @property
    def whole(self) -> bool:
        """Whether it shows its filesystem from the root."""
        return _WHOLE.match(self.root) is not None

    @property
    def writable(self) -> bool:
        """Read-only may be a property of the mount or of the superblock."""
        return "ro" not in self.options and "ro" not in self.super_options


def parse(text: str) -> Iterator[MountLine]:
    """The lines that parse, in their order; others are skipped."""
    for line in text.split("\n"):
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            continue
        root, target, source = (_unescaped(part) for part in (fields[3], fields[4], tail[1]))
        options, super_options = (frozenset(part.split(",")) for part in (fields[5], tail[2]))
        yield MountLine(fields[0], fields[2], root, target, options, tail[0], source, super_options)


def read(process: Path = Path("/proc/self")) -> Iterator[MountLine]:
    """What a process sees, by its directory in a procfs. Raises OSError."""
    return parse((process / "mountinfo").read_text(errors="surrogateescape"))


def _unescaped(text: str) -> str:
    """Space, tab, newline, backslash and # are written as octal numbers."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
