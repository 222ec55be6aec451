# SPDX-License-Identifier: Apache-2.0
"""The cgroup hierarchies of this host (from /proc/self/mountinfo alone), and the files of a cgroup."""

from __future__ import annotations

import os
import select

from ringfence_linux.cgroups import Hierarchies, hierarchies
from ringfence_runtime.errors import Error

__all__ = ["detect", "read", "write"]

_MOUNTINFO = "/proc/self/mountinfo"
_READ_ONLY = os.O_RDONLY | os.O_CLOEXEC


class _Mounts:
    """The mount table, read again when the kernel reports a change: by poll(2) of mountinfo (proc(5)).

    A change is reported once for an open file, so a fork opens its own.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._owner = 0
        self._poll = select.poll()
        self._found: Hierarchies | None = None

    def current(self) -> Hierarchies:
        if self._owner != os.getpid():
            self._fd, self._owner, self._found = os.open(_MOUNTINFO, _READ_ONLY), os.getpid(), None
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLPRI)
        if self._found is None or self._poll.poll(0):
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._found = hierarchies(_rest(self._fd))
        return self._found


_mounts = _Mounts()


def detect(*, keep: bool = False) -> Hierarchies:
    """The hierarchies of this host. `keep`: a process that runs for long asks for them often."""
    found = _mounts.current() if keep else hierarchies(read(_MOUNTINFO))
    if not found.v1 and not found.unified:
        raise Error("no cgroup hierarchy is mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    return found


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
