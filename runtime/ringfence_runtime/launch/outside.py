# SPDX-License-Identifier: Apache-2.0
"""Changes to a container's process that only the runtime may make, from outside."""

from __future__ import annotations

import os

from ringfence_runtime.errors import Error
from ringfence_runtime.launch.identity import free_cpus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.launch.plan import Plan

__all__ = ["from_outside", "set_oom_score"]


def from_outside(plan: Plan, group: Cgroup, pid: int) -> None:
    """Does what the init may not do to itself, before it goes on."""
    if plan.staged:
        group.join(pid)
    free_cpus(pid)
    process = plan.config.process
    if process is not None and process.oom_score_adj is not None:
        set_oom_score(pid, process.oom_score_adj)
    if plan.config.linux.net_devices:
        from ringfence_runtime.launch.netdev import move_devices

        target = plan.namespaces.get("network", -1)
        own = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) if target < 0 else -1
        try:
            move_devices(max(target, own), plan.config.linux.net_devices)
        finally:
            if own >= 0:
                os.close(own)


def set_oom_score(pid: int, value: int) -> None:
    """Writes oom_score_adj from outside."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(value))
    except OSError as error:
        raise Error(
            f"config: process.oomScoreAdj: cannot set {value}: {error.strerror}",
            hint="lowering it below the runtime's own needs CAP_SYS_RESOURCE",
        ) from None
