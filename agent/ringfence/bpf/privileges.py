# SPDX-License-Identifier: Apache-2.0
"""The capabilities(7) that the agent needs, why, and which of them this process holds.

The list is tested: tests/kernel/test_privileges.py runs the agent with exactly these, and shows what breaks
without each. The Helm chart grants the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["NEEDED", "Privilege", "held", "lacking"]

SYS_ADMIN = 21


class Privilege(NamedTuple):
    """One capability: its number of linux/capability.h, what it is for, what happens without it."""

    name: str
    number: int
    why: str
    without: str
    vital: bool = True  # without it the agent does not start
    by_sys_admin: bool = True  # the kernel takes CAP_SYS_ADMIN for it, too (as before 5.8)


NEEDED = (
    Privilege("BPF", 39, "to make maps and load programs", "the agent does not start"),
    Privilege("PERFMON", 38, "to load tracing and LSM programs", "the agent does not start"),
    Privilege("NET_ADMIN", 12, "to load and attach cgroup programs", "the agent does not start"),
    Privilege(
        "SYS_PTRACE", 19, "to read /proc/PID of others: namespaces, mounts",
        "the host's mount namespace is taken for the agent's own, and the posture of containers is unknown",
        vital=False, by_sys_admin=False,
    ),
    Privilege(
        "KILL", 5, "to kill processes of other users", "kills that are left to user space fail",
        vital=False, by_sys_admin=False,
    ),
)  # fmt: skip


def held(proc: Path = Path("/proc")) -> frozenset[int]:
    """The effective capabilities of this process, by number."""
    for line in (proc / "self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(number for number in range(64) if bits >> number & 1)
    return frozenset()


def lacking(numbers: Iterable[int], *, vital: bool = False) -> tuple[Privilege, ...]:
    """What is needed (only what is vital, if asked so) and neither held nor covered by CAP_SYS_ADMIN."""
    have = frozenset(numbers)
    return tuple(
        one
        for one in NEEDED
        if one.number not in have
        and not (one.by_sys_admin and SYS_ADMIN in have)
        and (one.vital or not vital)
    )
