# SPDX-License-Identifier: Apache-2.0
"""The kinds of namespaces by their names below /proc/PID/ns, and the numbers of single namespaces."""

from __future__ import annotations

import os

__all__ = ["CLONE_FLAGS", "INITIAL_INODES", "NAMES", "inode", "link", "names", "visible"]

#: in the order of struct rf_config
NAMES = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time")
#: name -> CLONE_NEW*, in the order of the flags
CLONE_FLAGS = {
    "time": 0x00000080,
    "mnt": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "net": 0x40000000,
}
#: include/linux/proc_ns.h: fixed since 3.8, so the initial namespaces are known without access to them
INITIAL_INODES = {
    "ipc": 0xEFFFFFFF,
    "uts": 0xEFFFFFFE,
    "user": 0xEFFFFFFD,
    "pid": 0xEFFFFFFC,
    "cgroup": 0xEFFFFFFB,
    "time": 0xEFFFFFFA,
}


def names(flags: int) -> tuple[str, ...]:
    """CLONE_NEW* bits as names."""
    return tuple(name for name, flag in CLONE_FLAGS.items() if flags & flag)


def link(pid: int | str, name: str, proc: str | os.PathLike[str] = "/proc") -> str:
    """A namespace of a process, such as `pid:[4026531836]`; empty if it cannot be read."""
    try:
        return os.readlink(f"{os.fspath(proc)}/{pid}/ns/{name}")
    except OSError:
        return ""


def inode(pid: int | str, name: str, proc: str | os.PathLike[str] = "/proc") -> int | None:
    """The number of that namespace; None if it cannot be read."""
    _, _, number = link(pid, name, proc).partition(":[")
    digits = number[:-1]
    return int(digits) if number[-1:] == "]" and digits.isdecimal() else None


def visible(proc: str | os.PathLike[str] = "/proc") -> dict[str, int]:
    """The namespaces of process 1, each kind from this process if it cannot be read there.

    0 for a kind that this kernel does not have.
    """
    return {name: inode("1", name, proc) or inode("self", name, proc) or 0 for name in NAMES}
