# SPDX-License-Identifier: Apache-2.0
"""Constructors of operands, and the operands that many events share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ringfence.abi import (
    DIM_EXE,
    DIM_FACTS,
    DIM_OBJECT,
    TREE_CGROUP,
    TREE_HOST,
    TREE_LOGS,
    TREE_OWN,
    TREE_SHIFT,
    TREE_STORAGE,
    TREE_TERMINAL,
    Fact,
    Relation,
)
from ringfence.policy import constants as c
from ringfence.policy.operand import FULL, Kind, Operand

__all__ = [
    "AT_ENTRY",
    "COMMON",
    "FILE",
    "LOW32",
    "MOUNTS",
    "NET",
    "NO_YES",
    "OPENED",
    "REACHED",
    "TASK_WORDS",
    "TREE",
]
__all__ += ["call", "choice", "flags", "one", "target", "text", "whose"]

LOW32 = 0xFFFFFFFF
AT_ENTRY = "read from the caller's memory at the start of the call: another thread can change it afterwards"
_BY_PATH = (
    "a path inside the container: a process that may write to it can replace the program. An exception or "
    "a `not` only applies to a program on the container's own root mount (not on volumes), and on overlayfs "
    "only if it is unchanged from the image. It ends for a process that was traced or written to, that was "
    "given variables of the loader (`LD_*`), or that maps code of another origin (with BPF-LSM)"
)

TASK_WORDS: Mapping[str, int] = {
    "in-user-namespace": Fact.USER_NAMESPACE,
    "cap-sys-admin": Fact.CAP_SYS_ADMIN,
    "all-capabilities": Fact.ALL_CAPABILITIES,
    "root": Fact.ROOT,
    "no-seccomp": Fact.NO_SECCOMP,
    "no-new-privs": Fact.NO_NEW_PRIVS,
    "host-pid": Fact.HOST_PID,
    "host-network": Fact.HOST_NETWORK,
    "host-ipc": Fact.HOST_IPC,
    "host-uts": Fact.HOST_UTS,
    "host-cgroup": Fact.HOST_CGROUP,
    "runs-from-memory": Fact.MEMFD_EXE,
    "program-not-in-image": Fact.UPPER_EXE,
    "32-bit-call": Fact.COMPAT,
    "foreign-abi": Fact.FOREIGN_ABI,
}
#: every bit of Fact
_FACTS = sum(Fact)


def one(words: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Returns operand words that each stand for one number."""
    return {word: (int(number),) for word, number in words.items()}


def flags(
    dim: int, meaning: str, words: Mapping[str, int], name: str = "flags", caution: str = ""
) -> Operand:
    """Returns an operand of bits, of which several may be set."""
    return Operand(name, Kind.FLAGS, dim, meaning, one(words), largest=LOW32, caution=caution)


def choice(name: str, dim: int, meaning: str, words: Mapping[str, int], mask: int = FULL) -> Operand:
    """Returns an operand with one of several numbers, in the bits of `mask`."""
    return Operand(name, Kind.CHOICE, dim, meaning, one(words), mask=mask, largest=LOW32)


def call(names: str, dim: int) -> Operand:
    """Returns the operand for the system call of a family; numbered from 1, as in ringfence.bpf.syscalls."""
    words = {name: number for number, name in enumerate(names.split(), 1)}
    return Operand("call", Kind.CHOICE, dim, "the system call of this family", one(words))


def target(dim: int, meaning: str, name: str = "target") -> Operand:
    """Returns an operand for the relation of a process or namespace to the task."""
    words = {r.label: (int(r),) for r in Relation}
    return Operand(name, Kind.CHOICE, dim, meaning, words)


def text(name: str, meaning: str, caution: str = AT_ENTRY) -> Operand:
    """Returns the operand for the event's string."""
    return Operand(name, Kind.TEXT, DIM_OBJECT, meaning, caution=caution)


COMMON = (
    Operand("task", Kind.FLAGS, DIM_FACTS, "facts about the calling task", one(TASK_WORDS), mask=_FACTS),
    Operand("exe", Kind.PROGRAM, DIM_EXE, "the program that the task runs", caution=_BY_PATH),
)
FILE = (
    Operand("filesystem", Kind.CHOICE, 0, "the type of the file's filesystem", c.FILESYSTEMS),
    Operand("name", Kind.NAME, 3, "the last component of the file's path"),
    Operand("path", Kind.OBJECT, DIM_OBJECT, "filesystem:path-inside-it"),
)
MOUNTS = {
    word: number << 16
    for number, word in enumerate(("own", "foreign", "none", "outside", "internal", "process"))
}
REACHED = (
    Operand("type", Kind.CHOICE, 2, "the file type", one(c.FILE_TYPES), mask=0o170000),
    Operand(
        "mount",
        Kind.CHOICE,
        2,
        "the mount through which the file was reached: in a mount namespace of the task or its container "
        "(own), in another one (foreign), in none (detached, or not attached yet), an own one but outside "
        "its root (outside, by file handle), or kernel-internal (internal: pipes, memfds, sockets); pipes, "
        "memfds, FIFOs and devices that a foreign process holds, by its /proc/PID, are `process`",
        one(MOUNTS),
        mask=7 << 16,
    ),
)
OPENED = (
    Operand("access", Kind.CHOICE, 1, "the requested access", {"read": (0, 2), "write": (1, 2)}, mask=3),
    *REACHED,
)
_TREES = {
    "host": TREE_HOST,
    "logs": TREE_LOGS,
    "storage": TREE_STORAGE,
    "cgroup": TREE_CGROUP,
    "terminal": TREE_TERMINAL,
}
#: dims of file.open
TREE = choice(
    "tree",
    2,
    "whose file it is, if it is opened for writing or its name changes: of the host's filesystems and not "
    "below what containers are commonly given (host), or below a directory of the host's logs (logs); of "
    "another container, where its engine has it (storage); of a cgroup that is not below the container's own "
    "(cgroup); a terminal of the host, however it is opened (terminal)",
    {word: number << TREE_SHIFT for word, number in _TREES.items()},
    mask=15 << TREE_SHIFT,
)


def whose(dim: int, *, by_hook: bool = True) -> Operand:
    """Returns the operand for the tree of the file that a call changes."""
    meaning = (
        "whose file it is: of the host, its logs or an engine's storage, as for file.open, or below the "
    )
    meaning += "container's root directory and on that filesystem, so on no volume (own)"
    words = {word: _TREES[word] for word in ("host", "logs", "storage")} | {"own": TREE_OWN}
    return replace(choice("tree", dim, meaning, words), by_hook=by_hook)


NET = (
    Operand("port", Kind.NUMBER, 0, "the remote port (bind: the local port)", largest=65535),
    Operand("family", Kind.CHOICE, 1, "IPv4 or IPv6", {"AF_INET": (2,), "AF_INET6": (10,)}),
    Operand(
        "protocol",
        Kind.CHOICE,
        2,
        "the transport protocol",
        {"tcp": (6,), "udp": (17,), "icmp": (1,), "icmpv6": (58,)},
        largest=255,
    ),
    Operand(
        "address", Kind.NETWORK, DIM_OBJECT, "an address, a range, or `node`: an address of the node itself"
    ),
)
NO_YES = {"no": 0, "yes": 1}
