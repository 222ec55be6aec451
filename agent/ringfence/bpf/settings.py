# SPDX-License-Identifier: Apache-2.0
"""What is fixed once the programs are loaded: sizes, the identities of host and agent, what is enabled."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.abi import CONFIG, GUARD_OFF, HIERARCHY_V2, EventKind
from ringfence.bpf import guard_calls
from ringfence.bpf.capabilities import cgroup_storage, preempts_programs
from ringfence.bpf.host import FileIdentity, root_identity
from ringfence.bpf.lsm import FOLLOW_HOOKS, HELPER_HOOK, decided_by
from ringfence_linux import namespaces
from ringfence_linux.procfs import own_start_ns

__all__ = ["DEFAULT_OBJECT", "KernelSettings"]

_NEVER = 64  # cgroups that are no containers, whatever their names
_SHARES = 4  # a container may have this part of the table of processes
DEFAULT_OBJECT = Path(__file__).resolve().parents[1] / "_bpf" / "ringfence.bpf.o"
_LEARNED = 65536  # programs of containers, times what each calls and needs


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """What is fixed once the programs are loaded. Sizes are entries, of the rings bytes (a power of two)."""

    object_path: Path = DEFAULT_OBJECT
    hierarchy: int = HIERARCHY_V2
    namespaces: Mapping[str, int] = field(default_factory=namespaces.visible)
    root: FileIdentity = field(default_factory=root_identity)
    agent_pid: int = field(default_factory=os.getpid)
    agent_start_ns: int = field(default_factory=own_start_ns)  # CLOCK_BOOTTIME, of the tick that it was in
    slots: int = 4096
    processes: int = 65536
    process_share: int = 0  # of them, for one container; 0: a quarter
    task_share: int = 0  # tasks that one container may have; 0: as many as it likes
    late: bool = True  # containers that were not enrolled when they were made are at their next exec
    root_cgroup: int = 0  # id of the topmost cgroup that can be seen; 0: the hierarchy's own root
    task_storage: bool | None = None  # cgroup programs use it; None: where they can
    drop_entries: int = 16384
    alerts_bytes: int = 1 << 20
    activity_bytes: int = 4 << 20
    activity_rate: int = 0  # records a second and container; 0: no limit
    activity_burst: int = 0
    alert_rate: int = 0  # the same for alerts without a kill
    alert_burst: int = 0
    guard: int = GUARD_OFF  # what becomes of a container that reaches for the agent: GUARD_*
    learn: bool = False  # count every call and capability (probes/learn.bpf.c)
    lsm_hooks: frozenset[str] = frozenset()  # LSM programs that this node can have; the others are left out
    tracing: frozenset[str] = frozenset()  # the same of TRACEPOINTS

    def sizes(self) -> dict[str, int]:
        """Map -> entries."""
        return {
            "slots": self.slots,
            "free_slots": self.slots,
            "counters": self.slots,
            "processes": self.processes,
            "carried": self.processes,
            "containers": self.slots + _NEVER,
            "drops": self.drop_entries,
            "alerts": self.alerts_bytes,
            "activity": self.activity_bytes,
            "learned": _LEARNED if self.learn else 1,
        }

    def pack(self, refused: Collection[str] = ()) -> bytes:
        """As struct rf_config. `refused` are programs that are not there."""
        inodes = (self.namespaces.get(name, 0) for name in namespaces.NAMES)
        hooks = {hook for hook in self.lsm_hooks if f"lsm_{hook}" not in refused}
        by_hook = (HELPER_HOOK in hooks, EventKind.PROCESS_EXEC in decided_by(hooks))
        rates = (self.activity_rate, self.activity_burst, self.alert_rate, self.alert_burst)
        agent = (self.agent_pid, self.agent_start_ns)
        storage = cgroup_storage() if self.task_storage is None else self.task_storage
        share = self.process_share or max(1, self.processes // _SHARES)
        table = (share, storage, self.late, self.task_share, self.root_cgroup, *self.root)
        guard = (self.guard, self.guards_by_hook(refused))
        return CONFIG.pack(self.hierarchy, *inodes, *agent, *rates, *by_hook, *table, *guard)

    def follows_by_perf(self) -> bool:
        """Whether tasks are to be followed at tracepoints by perf, too: no hooks do that, and it helps."""
        return preempts_programs() and not self.lsm_hooks >= FOLLOW_HOOKS

    def guards_by_hook(self, refused: Collection[str] = ()) -> bool:
        """Whether LSM hooks see to the self-defence, so that calls and opens need not be looked at for it."""
        hooks = guard_calls.REQUIRED_HOOKS
        return hooks <= self.lsm_hooks and not any(f"guard_{hook}" in refused for hook in hooks)
