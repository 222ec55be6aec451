# SPDX-License-Identifier: Apache-2.0
"""Which cgroup hierarchies this host has, and where they are mounted (from /proc/self/mountinfo alone)."""

from __future__ import annotations

import os
import select

from ringfence_runtime.errors import Error

__all__ = ["Hierarchies", "detect", "own_paths"]

_MOUNTINFO = "/proc/self/mountinfo"
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC
_OPTIONS = frozenset(
    ("rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "release_agent", "nsdelegate")
)


class Hierarchies:
    """Mount points by controller. Version 1 hierarchies are keyed by their controllers (`cpu,cpuacct`,
    `name=x`).
    """

    __slots__ = ("unified", "v1")

    def __init__(self, v1: dict[str, str], unified: str) -> None:
        self.v1 = v1
        self.unified = unified

    @property
    def kind(self) -> str:
        """`v2`, `v1` or `hybrid`."""
        if not self.v1:
            return "v2"
        return "hybrid" if self.unified else "v1"

    def mount_of(self, controller: str) -> str | None:
        """The version 1 mount of one controller."""
        for key, mount in self.v1.items():
            if controller in key.split(","):
                return mount
        return None


def _unescape(field: str) -> str:
    """Space, tab, newline, backslash and # are written as octal numbers, other letters as they are."""
    if "\\" not in field:
        return field
    import re  # what few hosts need, no start pays for

    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def parse_mountinfo(text: str) -> Hierarchies:
    """A pure function of mountinfo (proc_pid_mountinfo(5)). The first mount of a hierarchy counts."""
    v1: dict[str, str] = {}
    unified = ""
    for line in text.split("\n"):
        if " - cgroup" not in line:
            continue
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        kind, _, options = right.split(" ")[:3]
        mount = _unescape(fields[4])
        if kind == "cgroup2":
            unified = unified or mount
        elif kind == "cgroup":
            names = [word for word in options.split(",") if word.split("=")[0] not in _OPTIONS]
            v1.setdefault(",".join(names), mount)
    return Hierarchies(v1, unified)


class _Mounts:
    """The mount table, read again when the kernel says that it changed: poll(2) of mountinfo tells (proc(5)).

    What was told once to one reader of an open file is not told again, so a fork begins anew.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._owner = 0
        self._poll = select.poll()
        self._found: Hierarchies | None = None

    def hierarchies(self) -> Hierarchies:
        if self._owner != os.getpid():
            self._fd, self._owner, self._found = os.open(_MOUNTINFO, _READ_ONLY), os.getpid(), None
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLPRI)
        if self._found is None or self._poll.poll(0):
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._found = parse_mountinfo(_rest(self._fd))
        return self._found


_mounts = _Mounts()


def detect(*, keep: bool = False) -> Hierarchies:
    """The hierarchies of this host. `keep`: they are asked for often, by a process that stays."""
    found = _mounts.hierarchies() if keep else parse_mountinfo(read(_MOUNTINFO))
    if not found.v1 and not found.unified:
        raise Error("no cgroup hierarchy is mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    return found


def own_paths(pid: int | str = "self") -> dict[str, str]:
    """The cgroup of a process in each hierarchy (`` for version 2)."""
    result: dict[str, str] = {}
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            result["" if number == "0" else controllers] = path
    return result


def read(path: str) -> str:
    """The whole of a cgroup file, stripped."""
    fd = os.open(path, _READ_ONLY)
    try:
        return _rest(fd)
    finally:
        os.close(fd)


def _rest(fd: int) -> str:
    parts = []
    while part := os.read(fd, 65536):
        parts.append(part)
    return b"".join(parts).decode(errors="surrogateescape").strip()


def write(path: str, value: str) -> None:
    """One write, as every cgroup file wants it; raises OSError with the file's path."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
