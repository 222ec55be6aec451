# SPDX-License-Identifier: Apache-2.0
"""The capabilities(7) that the agent needs, why, and which of them this process holds.

tests/kernel/test_privileges.py runs the agent with exactly these, and shows what fails without each.
The Helm chart grants the same ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["NEEDED", "Privilege", "held", "lacking"]

SYS_ADMIN = 21


class Privilege(NamedTuple):
    """One capability: its number in linux/capability.h, its purpose, and the effect of its absence."""

    name: str
    number: int
    why: str
    without: str
    vital: bool = True  # without it the agent does not start
    by_sys_admin: bool = True  # the kernel also accepts CAP_SYS_ADMIN (as before 5.8)


NEEDED = (
    Privilege("BPF", 39, "to create maps and load programs", "the agent does not start"),
    Privilege("PERFMON", 38, "to load tracing and LSM programs", "the agent does not start"),
    Privilege("NET_ADMIN", 12, "to load and attach cgroup programs", "the agent does not start"),
    Privilege(
        "SYS_PTRACE", 19, "to read /proc/PID of other processes: namespaces, mounts",
        "the agent's mount namespace is assumed to be the host's, and the posture of containers is unknown",
        vital=False, by_sys_admin=False,
    ),
    Privilege(
        "KILL", 5, "to kill processes of other users", "kills from user space fail",
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
    """Returns missing privileges (`vital`: only vital ones) that CAP_SYS_ADMIN does not cover either."""
    have = frozenset(numbers)
    return tuple(
        one
        for one in NEEDED
        if one.number not in have
        and not (one.by_sys_admin and SYS_ADMIN in have)
        and (one.vital or not vital)
    )
