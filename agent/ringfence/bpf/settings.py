# SPDX-License-Identifier: Apache-2.0
"""Settings that are fixed at load: sizes, identities of host and agent, enabled features."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ringfence import compiled
from ringfence.abi import (
    CONFIG,
    ENTRIES_CERTAIN,
    ENTRIES_UNKNOWN,
    ENTRIES_UNSURE,
    GENERATIONS,
    GUARD_OFF,
    HIERARCHY_V2,
    EventKind,
    Mechanism,
)
from ringfence.bpf import guard_calls
from ringfence.bpf.capabilities import cgroup_storage
from ringfence.bpf.host import FileIdentity, root_identity
from ringfence.bpf.lsm import FOLLOW_HOOKS, HELPER_HOOK, SETNS_PROGRAMS, backstop_of, decided_by
from ringfence_linux import namespaces
from ringfence_linux.procfs import own_start_ns

__all__ = ["DEFAULT_OBJECT", "KernelSettings"]

_NEVER = 64  # cgroups that are never containers, whatever their names
_SETS = 4096  # sets of rules that policies need in a generation, besides one for each container
_NAMED_CLAIMS = 16  # namespaces per container, on average, that others know to be a container's
_SHARES = 4  # a container can use 1/_SHARES of the table of processes
DEFAULT_OBJECT = compiled.directory() / "ringfence.bpf.o"
_LEARNED = 65536  # container programs, times the calls and capabilities of each


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """Settings that are fixed at load. Sizes are in entries, for rings in bytes (a power of two)."""

    object_path: Path = DEFAULT_OBJECT
    hierarchy: int = HIERARCHY_V2
    namespaces: Mapping[str, int] = field(default_factory=namespaces.visible)
    root: FileIdentity = field(default_factory=root_identity)
    agent_pid: int = field(default_factory=os.getpid)
    agent_start_ns: int = field(default_factory=own_start_ns)  # CLOCK_BOOTTIME, rounded down to the tick
    slots: int = 4096
    processes: int = 65536
    process_share: int = 0  # maximum processes of one container; 0: a quarter
    task_share: int = 0  # maximum tasks of one container; 0: unlimited
    late: bool = True  # containers not enrolled at creation are enrolled at their next exec
    root_cgroup: int = 0  # id of the topmost visible cgroup; 0: the hierarchy's root
    task_storage: bool | None = None  # cgroup programs use it; None: if supported
    drop_entries: int = 16384
    alerts_bytes: int = 1 << 20
    activity_bytes: int = 4 << 20
    activity_rate: int = 0  # records a second and container; 0: no limit
    activity_burst: int = 0
    alert_rate: int = 0  # the same for alerts without a kill
    alert_burst: int = 0
    guard: int = GUARD_OFF  # reaction to a container that attacks the agent: GUARD_*
    refuse_unbound: bool = True  # a task that cannot be bound fails to start; False: it is bound later
    grace_ms: int = 3000  # see probes/include/unarmed.h
    learn: bool = False  # count every call and capability (probes/learn.bpf.c)
    lsm_hooks: frozenset[str] = frozenset()  # LSM programs that this node supports; the others are not loaded
    hook_mechanism: Mechanism = (
        Mechanism.LSM
    )  # how they decide: LSM, or HOOK at the functions that call hooks
    preemptible: bool = False  # the kernel may skip programs that are no LSM or cgroup programs
    backstop: bool = False  # what it skips is judged again, and killed: probes/include/backstop.h
    entries_skippable: bool = False  # the kernel may skip what stores the namespace that setns enters
    entry_backstop: bool = False  # a kprobe stores it, too: probes/setns.bpf.c
    narrow_entries: bool = False  # 32-bit calls are watched at functions of their own
    left_out: frozenset[str] = frozenset()  # programs that are never attached, and so not loaded
    tracing: frozenset[str] = frozenset()  # supported keys of TRACEPOINTS
    sealed: bool = True  # all maps that decide are frozen: only the agent's program can write them

    def sizes(self) -> dict[str, int]:
        """Map -> entries."""
        return {
            "slots": self.slots,
            "free_slots": self.slots,
            "counters": self.slots,
            "rule_sets": GENERATIONS * (self.slots + _SETS),
            "processes": self.processes,
            "containers": self.slots + _NEVER,
            "namespace_claims": self.slots,
            "namespace_owners": self.slots * _NAMED_CLAIMS,
            "drops": self.drop_entries,
            "alerts": self.alerts_bytes,
            "activity": self.activity_bytes,
            "learned": _LEARNED if self.learn else 1,
        }

    def pack(self, refused: Collection[str] = ()) -> bytes:
        """Packs struct rf_config. `refused` are programs that were not loaded."""
        inodes = (self.namespaces.get(name, 0) for name in namespaces.NAMES)
        hooks = {hook for hook in self.lsm_hooks if f"lsm_{hook}" not in refused}
        by_hook = (HELPER_HOOK in hooks, EventKind.PROCESS_EXEC in decided_by(hooks))
        rates = (self.activity_rate, self.activity_burst, self.alert_rate, self.alert_burst)
        agent = (self.agent_pid, self.agent_start_ns)
        storage = cgroup_storage() if self.task_storage is None else self.task_storage
        share = self.process_share or max(1, self.processes // _SHARES)
        table = (share, storage, self.late, self.task_share, self.root_cgroup, *self.root)
        guard = (self.guard, self.guards_by_hook(refused), self._entries(refused))
        unbound = (self.refuse_unbound, self.grace_ms)
        return CONFIG.pack(
            self.hierarchy,
            *inodes,
            *agent,
            *rates,
            *by_hook,
            *table,
            *guard,
            *unbound,
            self.hook_mechanism,
            self.backstop,
            0,
        )

    @property
    def hooks_skippable(self) -> bool:
        """True if the kernel may skip the programs at hooks: only BPF-LSM never is."""
        return self.preemptible and self.hook_mechanism is Mechanism.HOOK

    def follows_by_perf(self) -> bool:
        """Returns True if tasks are also followed by perf tracepoints, as no hook does it for certain."""
        return self.preemptible and (self.hooks_skippable or not self.lsm_hooks >= FOLLOW_HOOKS)

    def knows_entries(self, refused: Collection[str] = ()) -> bool:
        """Returns True if the hook that decides setns knows the namespace of every kind."""
        return "capable" in self.lsm_hooks and not SETNS_PROGRAMS & frozenset(refused)

    def _entries(self, refused: Collection[str]) -> int:
        """Returns ENTRIES_*."""
        if not self.knows_entries(refused):
            return ENTRIES_UNKNOWN
        backstops = frozenset(backstop_of(program) for program in SETNS_PROGRAMS)
        certain = not self.entries_skippable or (self.entry_backstop and not backstops & frozenset(refused))
        return ENTRIES_CERTAIN if certain else ENTRIES_UNSURE

    def has_backstop(self, program: str) -> bool:
        """Returns True if the backstop of that program is loaded, where there is one."""
        return self.entry_backstop if program in SETNS_PROGRAMS else self.backstop

    def refuses_forks(self, refused: Collection[str] = ()) -> bool:
        """Returns True if a hook refuses every fork whose child cannot be bound."""
        if self.hooks_skippable:
            return False
        return "task_alloc" in self.lsm_hooks and "follow_task_alloc" not in refused

    def guards_by_hook(self, refused: Collection[str] = ()) -> bool:
        """Returns True if LSM hooks implement the self-defence, so calls and opens need no check."""
        hooks = guard_calls.REQUIRED_HOOKS
        return hooks <= self.lsm_hooks and not any(f"guard_{hook}" in refused for hook in hooks)
