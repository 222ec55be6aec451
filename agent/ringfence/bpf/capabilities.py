# SPDX-License-Identifier: Apache-2.0
"""The capabilities of this node, found by trying or reading, never by the kernel's version."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ringfence.abi import Mechanism
from ringfence.bpf import (
    _libbpf,
    _maps,
    _syscalls,
    compat_probe,
    guard_calls,
    hook_probe,
    lsm_probe,
    preemption,
    privileges,
)
from ringfence.bpf.attach import Tracefs, kprobe_type, open_tracefs
from ringfence.bpf.maps import MapType
from ringfence.bpf.preemption import Preemption
from ringfence.bpf.syscalls import CALLS, tracepoint
from ringfence.errors import KernelError, NotPermittedError
from ringfence_linux import mountinfo
from ringfence_linux.architecture import ARCHITECTURES

__all__ = [
    "BPFFS",
    "CGROUP_ATTACHES",
    "TRACEPOINTS",
    "Lack",
    "NodeCapabilities",
    "cgroup_storage",
    "mounts_of",
]

#: directories for pins: the node's bpffs, else one that the agent mounts
BPFFS = ("/sys/fs/bpf", "/run/ringfence/bpf")

#: section name after `cgroup/` -> (enum bpf_prog_type, enum bpf_attach_type)
CGROUP_ATTACHES = {
    "dev": (15, 6),
    "sysctl": (23, 18),
    "bind4": (18, 8),
    "bind6": (18, 9),
    "connect4": (18, 10),
    "connect6": (18, 11),
    "sendmsg4": (18, 14),
    "sendmsg6": (18, 15),
    "connect_unix": (18, 49),  # 859051dd165e, 6.7
    "sendmsg_unix": (18, 50),  # 859051dd165e, 6.7
    "setsockopt": (25, 22),
    "sock_create": (9, 2),
    "egress": (8, 1),
}
#: tracepoints of tp_btf programs that a kernel may lack (CONFIG_MODULES)
TRACEPOINTS = {"module_request": "module/module_request"}


_RAW_TRACEPOINT = 17  # enum bpf_prog_type
_PROBE_READ_KERNEL, _TASK_STORAGE_GET = 113, 156  # enum bpf_func_id


@dataclass(frozen=True, slots=True)
class Lack:
    """A missing requirement, and its remedy."""

    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class NodeCapabilities:
    """See `detect`.

    - `syscalls`: the calls with a tracepoint; `tracing`: the available keys of TRACEPOINTS.
    - `cgroup`: the keys of CGROUP_ATTACHES that load.
    - `lsm`: the active security modules; `lsm_hooks`: the hooks of ringfence.bpf.lsm where programs can
      decide; `hook_mechanism`: LSM, or HOOK if they decide at the functions that call the hooks.
    - `lsm_lack`: why BPF-LSM does not decide; `hook_lack`: why, in addition, those functions do not.
    - `preemption`: how the kernel preempts itself.
    - `kprobes`: True if perf has kprobes.
    - `compat`: True if 32-bit calls can be made and watched; `compat_entries`: where without a program
      at every call (ringfence.bpf.compat_probe).
    - `bpffs`, `cgroup2`: mount points (empty: not mounted).
    - `reads_kernel`: True if programs may read the kernel's memory.
    - `lacks`: missing requirements of the agent.
    """

    kernel: str
    machine: str
    libbpf: tuple[int, int]
    permitted: bool
    btf: bool
    ring_buffer: bool
    tracefs: bool
    syscalls: frozenset[str] = frozenset()
    tracing: frozenset[str] = frozenset()
    cgroup: frozenset[str] = frozenset()
    lsm: tuple[str, ...] = ()
    lsm_hooks: frozenset[str] = frozenset()
    lsm_lack: str = ""
    hook_mechanism: Mechanism = Mechanism.LSM
    hook_lack: str = ""
    preemption: Preemption = Preemption.UNKNOWN
    kprobes: bool = False
    compat: bool = False
    compat_entries: frozenset[str] = frozenset()
    bpffs: str = ""
    cgroup2: str = ""
    reads_kernel: bool = True
    lacks: tuple[Lack, ...] = field(default=())

    @classmethod
    def detect(cls, preempts: Preemption = Preemption.UNKNOWN) -> NodeCapabilities:
        """Examines this node, in some milliseconds. Without privileges most is unknown, thus absent.

        `preempts`: how the kernel preempts itself if the kernel does not show it.
        """
        permitted = not privileges.lacking(privileges.held(), vital=True)
        version, library_lack = _library()
        tracefs, syscalls, tracing = _tracepoints() if permitted else (False, frozenset(), frozenset())
        ring = permitted and version > (0, 0) and _has_ring_buffer()
        btf = Path("/sys/kernel/btf/vmlinux").exists()
        hooks = _hooks() if ring and btf else _Hooks(lsm_lack="not permitted to try")
        narrow = compat_probe.find(kprobes=permitted and kprobe_type() > 0)
        found = cls(
            kernel=platform.release(),
            machine=platform.machine(),
            libbpf=version,
            permitted=permitted,
            btf=btf,
            ring_buffer=ring,
            tracefs=tracefs,
            syscalls=syscalls,
            tracing=tracing,
            cgroup=frozenset(_cgroup_attaches()) if permitted else frozenset(),
            lsm=_lsm(),
            lsm_hooks=hooks.names,
            lsm_lack=hooks.lsm_lack,
            hook_mechanism=hooks.mechanism,
            hook_lack=hooks.hook_lack,
            preemption=preemption.find(preempts),
            kprobes=kprobe_type() > 0,
            compat=narrow.possible,
            compat_entries=narrow.entries,
            bpffs=next((path for path in BPFFS if path in mounts_of("bpf")), ""),
            cgroup2=min(mounts_of("cgroup2"), key=len, default=""),
            reads_kernel=not permitted or _syscalls.may_call(_RAW_TRACEPOINT, 0, _PROBE_READ_KERNEL),
        )
        return _with_lacks(found, library_lack)

    @property
    def hooks_skippable(self) -> bool:
        """True if the kernel may skip the programs that decide at hooks, so that a call passes."""
        return self.hook_mechanism is Mechanism.HOOK and self.preemption.may_skip

    @property
    def backstop(self) -> bool:
        """True if what such a program misses is judged again by a kprobe, and killed."""
        return self.hooks_skippable and self.kprobes

    @property
    def entry_backstop(self) -> bool:
        """True if a kprobe notes the namespace that setns enters, as the kernel may skip fentry."""
        return self.preemption.may_skip and self.kprobes

    def require(self) -> None:
        """Raises KernelError (NotPermittedError) with everything that is missing, if anything is."""
        if not self.lacks:
            return
        kind = KernelError if self.permitted else NotPermittedError
        message = "; ".join(lack.what for lack in self.lacks)
        raise kind(f"the agent cannot run here: {message}", hint="; ".join(lack.hint for lack in self.lacks))


class _Hooks(NamedTuple):
    """The hooks where programs can decide, and how; or why there are none."""

    names: frozenset[str] = frozenset()
    mechanism: Mechanism = Mechanism.LSM
    lsm_lack: str = ""
    hook_lack: str = ""


def _hooks() -> _Hooks:
    """BPF-LSM comes first, as the kernel never skips it."""
    names, lsm_lack = lsm_probe.available_hooks()
    if names:
        return _Hooks(names)
    names, hook_lack = hook_probe.available_hooks()
    return _Hooks(names, Mechanism.HOOK if names else Mechanism.LSM, lsm_lack, hook_lack)


def _with_lacks(found: NodeCapabilities, library: Lack | None) -> NodeCapabilities:
    lacks = [library] if library else []
    if found.machine not in ARCHITECTURES:
        lacks.append(Lack(f"architecture {found.machine}", "use x86_64 or arm64"))
    if not found.permitted:
        lacks.append(Lack("not permitted to use BPF", f"run it as root, or with {_vital()}"))
    elif not found.ring_buffer and not library:
        lacks.append(Lack("no BPF ring buffer", "use Linux 5.15 or newer with CONFIG_BPF_SYSCALL"))
    elif not found.tracefs:
        lacks.append(
            Lack("no tracepoints of system calls", "use a kernel with CONFIG_FTRACE_SYSCALLS and tracefs")
        )
    if not found.reads_kernel:
        lacks.append(
            Lack(
                "programs may not read the kernel's memory (lockdown is in mode confidentiality)",
                "boot without lockdown=confidentiality; mode integrity permits it",
            )
        )
    if not found.btf:
        lacks.append(
            Lack("no BTF (/sys/kernel/btf/vmlinux)", "use a kernel with CONFIG_DEBUG_INFO_BTF, mount /sys")
        )
    if not found.cgroup2:
        lacks.append(Lack("no cgroup v2 hierarchy", "mount -t cgroup2 none /sys/fs/cgroup/unified"))
    return NodeCapabilities(
        **{name: getattr(found, name) for name in found.__slots__} | {"lacks": tuple(lacks)}
    )


def _vital() -> str:
    return ", ".join(f"CAP_{one.name}" for one in privileges.NEEDED if one.vital)


def _library() -> tuple[tuple[int, int], Lack | None]:
    try:
        return _libbpf.version(), None
    except KernelError as error:
        return (0, 0), Lack(error.message, error.hint)


def _has_ring_buffer() -> bool:
    try:
        os.close(_maps.create(MapType.RINGBUF, "rf_probe", 0, 0, os.sysconf("SC_PAGE_SIZE")))
    except OSError:
        return False
    return True


def _tracepoints() -> tuple[bool, frozenset[str], frozenset[str]]:
    """Returns: system calls have tracepoints; the calls with one; the available ones of TRACEPOINTS."""
    try:
        with open_tracefs() as tracefs:
            others = frozenset(name for name, place in TRACEPOINTS.items() if tracefs.has(place))
            calls = frozenset(_traced(tracefs, {*CALLS, *guard_calls.CALLS}))
            return tracefs.has("syscalls/sys_enter_openat"), calls, others
    except KernelError:
        return False, frozenset(), frozenset()


def _traced(tracefs: Tracefs, names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if tracefs.has(f"syscalls/sys_enter_{tracepoint(name)}"))


def _cgroup_attaches() -> Iterable[str]:
    for name, (kind, attach_type) in CGROUP_ATTACHES.items():
        try:
            os.close(_syscalls.load_trivial_program(kind, attach_type))
        except OSError:
            continue
        yield name


def _lsm() -> tuple[str, ...]:
    """Returns the security modules in securityfs; empty if it is not mounted."""
    try:
        return tuple(Path("/sys/kernel/security/lsm").read_text().strip().split(","))
    except OSError:
        return ()


@cache
def cgroup_storage() -> bool:
    """Returns True if cgroup-BPF programs have task storage (6.2), and need no table of processes."""
    kinds = {CGROUP_ATTACHES[name] for name in ("dev", "sysctl", "connect4")}
    return all(_syscalls.may_call(*kind, _TASK_STORAGE_GET) for kind in kinds)


def mounts_of(kind: str, source: str = "") -> list[str]:
    """Returns mount points of filesystems of that type (and source, if given), mounted from their root."""
    return [
        mount.target
        for mount in mountinfo.read()
        if mount.fstype == kind and mount.whole and source in ("", mount.source)
    ]
