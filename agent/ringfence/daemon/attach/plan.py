# SPDX-License-Identifier: Apache-2.0
"""From configuration, node and policies to the programs that are loaded and attached. Plans are
values; nothing is attached here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ringfence.abi import (
    DIM_EXE,
    OBSERVE_ACTIVITY,
    OBSERVE_ALERTS,
    OBSERVE_OFF,
    PATTERN_ANY,
    PATTERN_BUILD,
    PATTERN_HEX64,
    Action,
    EventKind,
)
from ringfence.bpf import guard_calls
from ringfence.bpf.attach import AttachPlan
from ringfence.bpf.capabilities import NodeCapabilities
from ringfence.bpf.kernel import Pattern
from ringfence.bpf.lsm import decided_by, hooks_for
from ringfence.bpf.syscalls import DONE, OPENS, names_of
from ringfence.config import Config
from ringfence.config.values import Pattern as NamePattern
from ringfence.containers.patterns import patterns_for
from ringfence.daemon.parts import Node
from ringfence.policy import CompiledPolicies, NodeTiers
from ringfence.policy.tiers import CGROUP_HOOKS
from ringfence_linux.procfs import TICK_NS, start_ticks

__all__ = [
    "Planner",
    "attach_plan",
    "judges_packets",
    "kernel_pattern",
    "kernel_patterns",
    "needed_kinds",
    "observe_levels",
    "process_age",
    "tiers_of",
]

_K = EventKind
_LEVELS = {"off": OBSERVE_OFF, "activity": OBSERVE_ACTIVITY, "alerts": OBSERVE_ALERTS}
_LIFE = (_K.CONTAINER_CREATE, _K.CONTAINER_START, _K.CONTAINER_STOP, _K.CONTAINER_REMOVE)
_CGROUPS = (_K.CGROUP_MKDIR, _K.CGROUP_RMDIR, _K.CGROUP_ATTACH)
_PROCESSES = (_K.PROCESS_FORK, _K.PROCESS_EXEC, _K.PROCESS_EXIT)
#: event -> the cgroup programs that see it (keys of CGROUP_ATTACHES)
_CGROUP_PROGRAMS: Mapping[EventKind, tuple[str, ...]] = {
    **CGROUP_HOOKS,
    # A datagram to a unix socket is reported, too; rules need the hook of connect alone.
    _K.UNIX_CONNECT: (*CGROUP_HOOKS[_K.UNIX_CONNECT], "sendmsg_unix"),
}
#: the cgroup programs that judge packets, where a rule refuses one of these events
_PACKET_PROGRAMS = frozenset(("egress", "sock_create"))
_OF_PACKETS = frozenset((_K.NET_CONNECT, _K.NET_SENDMSG))
#: by these a process gets code of another one, or of another file
_DRIVEN_BY = frozenset((_K.SYS_PTRACE, _K.SYS_PROCESS_VM, _K.FILE_MAP))
#: counted for every container (opens, connects), even if no rule needs them
_COUNTED = frozenset((_K.FILE_OPEN, _K.NET_CONNECT))


def kernel_patterns(config: Config) -> list[Pattern]:
    """Names of cgroups that are containers, in the form of the probes."""
    patterns = patterns_for(config.patterns, known=config.known_names)
    return [kernel_pattern(pattern) for pattern in patterns]


def kernel_pattern(pattern: NamePattern) -> Pattern:
    """One of these names, in the form of the probes."""
    kind = PATTERN_BUILD if pattern.build else PATTERN_HEX64 if pattern.hex64 else PATTERN_ANY
    return Pattern(kind, pattern.prefix.encode())


def tiers_of(node: NodeCapabilities, sections: Iterable[str] | None = None) -> NodeTiers:
    """The capabilities of this node for each event. `sections`: the loaded programs; None: all."""
    tiers = NodeTiers.of(node)
    if sections is None:
        return tiers
    loaded = frozenset(sections)
    decided = decided_by([hook for hook in node.lsm_hooks if f"lsm/{hook}" in loaded])
    tiers = tiers.without_lsm(tiers.hooks.keys() - decided.keys(), "this kernel refused its LSM program")
    tiers = tiers.with_hooks(decided)
    for kind, programs in _CGROUP_PROGRAMS.items():
        if kind not in tiers.hooks and not any(f"cgroup/{name}" in loaded for name in programs):
            tiers = tiers.without((kind,), tiers.why.get(kind, "its program was not loaded"))
    exits = any(section.startswith("tracepoint/syscalls/sys_exit") for section in loaded)
    if not exits and _K.FILE_OPEN not in tiers.hooks:
        tiers = tiers.without((_K.FILE_OPEN,), "its program was not loaded")
    return tiers


def observe_levels(config: Config) -> dict[EventKind, int]:
    """Where events are reported that no rule matches: lifecycle always, processes as activity, the
    rest as configured.
    """
    levels = dict.fromkeys((*_LIFE, *_CGROUPS), OBSERVE_ALERTS) | dict.fromkeys(_PROCESSES, OBSERVE_ACTIVITY)
    levels |= {EventKind.from_label(label): _LEVELS[level] for label, level in config.observe.items()}
    # Without these no event could be attributed, whatever was configured.
    return levels | dict.fromkeys(_LIFE, OBSERVE_ALERTS)


def needed_kinds(config: Config, *compiled: CompiledPolicies) -> frozenset[EventKind]:
    """The events that a rule names, those that are observed or counted, and, if a rule depends on the
    program, those by which somebody else can drive it (probes/include/borrowed.h).
    """
    off = {label for label, level in config.observe.items() if level == "off"}
    kinds = {kind for kind, level in observe_levels(config).items() if level}
    kinds |= {kind for kind in _COUNTED if kind.label not in off}
    for policies in compiled:
        kinds |= set(policies.events)
        if any(dim == DIM_EXE for _, dim, _ in policies.operands):
            kinds |= _DRIVEN_BY
    return frozenset(kinds)


def judges_packets(*compiled: CompiledPolicies) -> bool:
    """Returns True if a rule refuses connections or datagrams, so that packets are judged, too."""
    refused = (Action.DENY, Action.KILL)
    return any(
        rule.action in refused and rule.events & _OF_PACKETS
        for policies in compiled
        for rule in policies.rules.values()
    )


def _done_by_programs(cgroup: frozenset[str] | set[str]) -> frozenset[str]:
    """The server of a unix socket is known when connect(2) is done, if its begin was seen."""
    return frozenset({"connect"} if "connect_unix" in cgroup else ())


def attach_plan(
    kinds: frozenset[EventKind],
    config: Config,
    node: NodeCapabilities,
    cgroup2: str,
    tiers: NodeTiers,
    guarding: str = "",
    packets: bool = False,
) -> AttachPlan:
    """The places where programs must be attached to see these events. Events that no part needs
    cost nothing.

    An event that an LSM hook decides gets no other program: it would be reported twice, at a cost
    for every call. `guarding` as Kernel.guarding; `packets` as judges_packets.
    """
    hooked = kinds & tiers.hooks.keys()
    weaker = kinds - hooked
    calls = frozenset(name for name in names_of(weaker) if name in node.syscalls)
    watched = frozenset(name for name in guard_calls.CALLS if name in node.syscalls and guarding == "calls")
    opens = frozenset(OPENS) if watched or weaker & {_K.FILE_OPEN, _K.TASK_DRIFT} else frozenset()
    programs = {name for kind in weaker for name in _CGROUP_PROGRAMS.get(kind, ())}
    if packets:
        programs |= _PACKET_PROGRAMS
    return AttachPlan(
        entry=calls,
        exit=opens,
        done=frozenset(DONE) & calls | _done_by_programs(programs & node.cgroup),
        cgroup=frozenset(programs & node.cgroup),
        cgroup_path=cgroup2,
        compat=config.compat != "off" and node.compat and bool(calls | watched),
        compat_entries=node.compat_entries,
        compat_exit=config.compat == "full" and node.compat and bool(opens),
        lsm=hooks_for(hooked, tiers.hooks),
        hooked=frozenset(names_of(hooked)),
        drift=_K.TASK_DRIFT in kinds,
        checkpoints=bool(hooked & {_K.TASK_DRIFT, _K.SYS_SETNS}),
        requests=_K.MODULE_REQUEST in weaker,
        guard=bool(guarding),
        guarded=watched,
        guarded_exit=frozenset(guard_calls.EXITS) if watched else frozenset(),
    )


def process_age() -> float:
    """Seconds since this process started; exact to a clock tick."""
    start = (start_ticks(os.getpid()) or 0) * TICK_NS
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - start) / 1e9


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans for this node. `tiers`: its capabilities with the programs that were loaded."""

    node: Node
    tiers: NodeTiers
    guarding: str

    def plan(self, *sets: CompiledPolicies) -> AttachPlan:
        """The places where programs must be attached for these sets of policies together."""
        config, cgroup2 = self.node.config, str(self.node.hierarchy.v2_mount or "")
        kinds = needed_kinds(config, *sets)
        packets = judges_packets(*sets)
        return attach_plan(kinds, config, self.node.capabilities, cgroup2, self.tiers, self.guarding, packets)
