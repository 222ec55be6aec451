# SPDX-License-Identifier: Apache-2.0
"""The lines of /proc/PID/mountinfo: proc_pid_mountinfo(5). `parse` is pure."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MountLine", "parse", "parse_line", "read", "read_text", "unescape"]

_DIGITS = frozenset("01234567")


class MountLine:
    """One mount. Bytes that are not UTF-8 are surrogates, if the text was decoded so."""

    __slots__ = ("device", "fstype", "id", "options", "parent", "root", "source", "super_options", "target")

    def __init__(self, fields: list[str], tail: list[str]) -> None:
        self.id = fields[0]
        self.parent = fields[1]
        self.device = fields[2]
        """MAJOR:MINOR of the superblock"""
        self.root = unescape(fields[3])
        """the directory of the filesystem that the mount shows"""
        self.target = unescape(fields[4])
        """the mount point"""
        self.options = fields[5].split(",")
        """of the mount"""
        self.fstype = tail[0]
        self.source = unescape(tail[1])
        self.super_options = tail[2].split(",")

    @property
    def whole(self) -> bool:
        """True if it shows its filesystem from the root.

        From a cgroup namespace of one's own, as in a pod, the root of a cgroup hierarchy is named "/../..".
        """
        return self.root[:1] == "/" and not set(self.root[1:].split("/")) - {"", ".."}

    @property
    def writable(self) -> bool:
        """Read-only may be a property of the mount or of the superblock."""
        return "ro" not in self.options and "ro" not in self.super_options


def parse_line(line: str) -> MountLine | None:
    """One line; None if it cannot be parsed."""
    left, separator, right = line.partition(" - ")
    fields, tail = left.split(" "), right.split(" ")
    if not separator or len(fields) < 6 or len(tail) < 3:
        return None
    return MountLine(fields, tail)


def parse(text: str) -> Iterator[MountLine]:
    """The lines that can be parsed, in their order; others are skipped."""
    for line in text.split("\n"):
        mount = parse_line(line)
        if mount is not None:
            yield mount


def read(process: str | os.PathLike[str] = "/proc/self") -> Iterator[MountLine]:
    """The mounts of a process, by its directory in a procfs. Raises OSError."""
    return parse(read_text(process))


def read_text(process: str | os.PathLike[str] = "/proc/self") -> str:
    """The mountinfo of a process as text. Raises OSError."""
    path = f"{os.fspath(process)}/mountinfo"
    with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def unescape(text: str) -> str:
    """Replace the octal escapes of space, tab, newline, backslash and #."""
    if "\\" not in text:
        return text
    first, *parts = text.split("\\")
    return first + "".join(
        chr(int(part[:3], 8)) + part[3:] if len(part) > 2 and _DIGITS.issuperset(part[:3]) else f"\\{part}"
        for part in parts
    )
