# SPDX-License-Identifier: Apache-2.0
"""How operands are written, and those that many events share."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.abi import DIM_EXE, DIM_FACTS, DIM_OBJECT, Relation
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
]
__all__ += ["call", "choice", "flags", "one", "target", "text"]

LOW32 = 0xFFFFFFFF
AT_ENTRY = "read from the process's memory when the call begins: another thread can change it after that"
_BY_PATH = (
    "a path inside the container: who may write there can put another program in its place. An exception or "
    "a `not` holds only from the container's own root and on the mount of it (not on volumes), and on "
    "overlayfs only while the program is as the image has it"
)

TASK_WORDS: Mapping[str, int] = {
    "in-user-namespace": 1 << 0,
    "cap-sys-admin": 1 << 1,
    "all-capabilities": 1 << 2,
    "root": 1 << 3,
    "no-seccomp": 1 << 4,
    "no-new-privs": 1 << 5,
    "host-pid": 1 << 6,
    "host-network": 1 << 7,
    "host-ipc": 1 << 8,
    "host-uts": 1 << 9,
    "host-cgroup": 1 << 10,
    "runs-from-memory": 1 << 11,
    "program-not-in-image": 1 << 12,
    "32-bit-call": 1 << 13,
    "foreign-abi": 1 << 14,
}


def one(words: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Each word stands for one number."""
    return {word: (number,) for word, number in words.items()}


def flags(
    dim: int, meaning: str, words: Mapping[str, int], name: str = "flags", caution: str = ""
) -> Operand:
    """Bits; several may be set."""
    return Operand(name, Kind.FLAGS, dim, meaning, one(words), largest=LOW32, caution=caution)


def choice(name: str, dim: int, meaning: str, words: Mapping[str, int], mask: int = FULL) -> Operand:
    """One of several numbers, those of `mask`."""
    return Operand(name, Kind.CHOICE, dim, meaning, one(words), mask=mask, largest=LOW32)


def call(names: str, dim: int) -> Operand:
    """Which call of a family it is: numbered from 1, as ringfence.bpf.syscalls does."""
    words = {name: number for number, name in enumerate(names.split(), 1)}
    return Operand("call", Kind.CHOICE, dim, "which call of the family", one(words))


def target(dim: int, meaning: str, name: str = "target") -> Operand:
    """In what relation a process or namespace stands to the task."""
    words = {r.label: (int(r),) for r in Relation}
    return Operand(name, Kind.CHOICE, dim, meaning, words)


def text(name: str, meaning: str, caution: str = AT_ENTRY) -> Operand:
    """The event's string."""
    return Operand(name, Kind.TEXT, DIM_OBJECT, meaning, caution=caution)


COMMON = (
    Operand("task", Kind.FLAGS, DIM_FACTS, "what is true of the calling task", one(TASK_WORDS), mask=0x7FFF),
    Operand("exe", Kind.PROGRAM, DIM_EXE, "the program that the task runs", caution=_BY_PATH),
)
FILE = (
    Operand("filesystem", Kind.CHOICE, 0, "the kind of filesystem that the file lies on", c.FILESYSTEMS),
    Operand("name", Kind.NAME, 3, "the last component of its path"),
    Operand("path", Kind.OBJECT, DIM_OBJECT, "filesystem:path-inside-it"),
)
MOUNTS = {"own": 0, "foreign": 1 << 16, "none": 2 << 16, "outside": 3 << 16, "internal": 4 << 16}
REACHED = (
    Operand("type", Kind.CHOICE, 2, "what kind of file", one(c.FILE_TYPES), mask=0o170000),
    Operand(
        "mount",
        Kind.CHOICE,
        2,
        "whose mount the file was reached by: of a mount namespace of the task's or its container's own, of "
        "another one (foreign), of none (detached, or not attached yet), its own but outside of that mount's "
        "root (by file handle), or the kernel's own (internal: pipes, memfds, sockets)",
        one(MOUNTS),
        mask=7 << 16,
    ),
)
OPENED = (
    Operand("access", Kind.CHOICE, 1, "what it is opened for", {"read": (0, 2), "write": (1, 2)}, mask=3),
    *REACHED,
)
NET = (
    Operand("port", Kind.NUMBER, 0, "the port of the other side (bind: its own)", largest=65535),
    Operand("family", Kind.CHOICE, 1, "IPv4 or IPv6", {"AF_INET": (2,), "AF_INET6": (10,)}),
    Operand(
        "protocol",
        Kind.CHOICE,
        2,
        "transport",
        {"tcp": (6,), "udp": (17,), "icmp": (1,), "icmpv6": (58,)},
        largest=255,
    ),
    Operand("address", Kind.NETWORK, DIM_OBJECT, "an address, a range, or `node`: one of the node's own"),
)
NO_YES = {"no": 0, "yes": 1}
