# SPDX-License-Identifier: Apache-2.0
"""Attaches loaded programs: tracing by BTF, LSM hooks, system calls, cgroups. All by bpf links.

A link is a descriptor: it detaches when the last copy is closed, unless it is pinned (ringfence.bpf.pins).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ringfence.bpf import _libbpf, _syscalls
from ringfence.bpf.lsm import function_of, hook_program
from ringfence.bpf.objects import Program
from ringfence.bpf.syscalls import tracepoint
from ringfence.errors import KernelError
from ringfence_linux import syscalls

__all__ = [
    "AttachPlan",
    "Attached",
    "Place",
    "Skipped",
    "Tracefs",
    "detach",
    "kprobe_type",
    "never_attached",
    "open_tracefs",
    "run_iterator",
]

#: why a cgroup program cannot be attached; the others are attached nevertheless
_NOT_HERE = {
    errno.EINVAL: "this kernel cannot attach it",
    errno.EOPNOTSUPP: "this kernel cannot attach it",
    errno.EPERM: "another product has attached its program here exclusively",
    errno.E2BIG: "other products have attached the maximum number of programs here",
}
#: where the instruction behind the entry begins: x86 without and with IBT
_BEHIND_ENTRY = (5, 9)
#: the program at the functions that 32-bit calls pass (probes/syscalls.bpf.c)
NARROW_CALL = "narrow_call"
_MOUNTED_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")


@dataclass(frozen=True, slots=True)
class AttachPlan:
    """What to attach. Nothing else is attached.

    - `tracing`: tracepoints of tp_btf programs (sched_process_exec); None: all of the object.
    - `entry`, `exit`: system calls as in ringfence.bpf.syscalls; None: all.
    - `cgroup`: names after `cgroup/` in a section (dev, sysctl, connect4); None: all.
    - `cgroup_path`: root of the cgroup v2 hierarchy; empty: no cgroup programs.
    - `compat`, `compat_exit`: also see calls of 32-bit programs, for about 30 ns per call on the node.
      With `compat`, one program at every call replaces those at the tracepoints of `entry`; not with
      `compat_entries`: the functions that all such calls pass.
    - `lsm`: hooks of ringfence.bpf.lsm; `hooked`: the calls that they decide, which are not in `entry`.
    - `drift`: the programs that detect drift, and where.
    - `checkpoints`: check tasks at hooks that no rule needs, too (ringfence.bpf.lsm), and know what
      setns enters.
    - `requests`: the program at requests for modules.
    - `guard`: the programs of the self-defence, which can need the entry of more calls (`guarded`) and
      the exit of some (`guarded_exit`).
    """

    entry: frozenset[str] = frozenset()
    exit: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    tracing: frozenset[str] | None = None
    cgroup: frozenset[str] | None = None
    cgroup_path: str = ""
    compat: bool = False
    compat_exit: bool = False
    compat_entries: frozenset[str] = frozenset()
    lsm: frozenset[str] = frozenset()
    hooked: frozenset[str] = frozenset()
    drift: bool = False
    checkpoints: bool = False
    requests: bool = False
    guard: bool = False
    guarded: frozenset[str] = frozenset()
    guarded_exit: frozenset[str] = frozenset()

    @property
    def every_call(self) -> bool:
        """True if 32-bit calls are watched by a program at every call of the node."""
        return self.compat and not self.compat_entries


class Attached(NamedTuple):
    """One program attached at one place. `fd` is the link."""

    program: str
    target: str
    fd: int


class Skipped(NamedTuple):
    """One place where the kernel does not permit a program, or that it lacks (`absent`)."""

    program: str
    target: str
    reason: str
    absent: bool = False


class Tracefs:
    """An open tracefs, for ids of tracepoints."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def tracepoint_id(self, name: str) -> int | None:
        """Returns the id of, for example, `syscalls/sys_enter_unshare`; None: this kernel lacks it."""
        try:
            fd = os.open(f"events/{name}/id", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return int(file.read())

    def has(self, name: str) -> bool:
        return self.tracepoint_id(name) is not None


@contextmanager
def open_tracefs() -> Iterator[Tracefs]:
    """Opens the mounted tracefs, or a detached mount that ends with the block."""
    fd = -1
    for path in _MOUNTED_TRACEFS:
        if Path(path, "events").is_dir():
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            break
    if fd < 0:
        try:
            fd = syscalls.mount_detached("tracefs")
        except OSError as error:
            raise KernelError(
                f"tracefs cannot be mounted: {error.strerror}",
                hint="run it as root on a kernel with CONFIG_FTRACE, or mount tracefs at /sys/kernel/tracing",
            ) from None
    try:
        yield Tracefs(fd)
    finally:
        os.close(fd)


class Place(NamedTuple):
    """Where to attach a program. Kinds: tp_btf, lsm, fentry, kprobe, tracepoint, cgroup.

    The target is that of SEC(), of a kprobe the function.
    """

    program: Program
    kind: str
    target: str


def never_attached(watch: str, compat: bool, entries: frozenset[str]) -> frozenset[str]:
    """The programs at system calls that no plan of a node has. To verify one of them takes the kernel
    about a tenth of the time for all.

    `watch`: `syscalls.compat` of the configuration; `compat`: the kernel runs 32-bit calls; `entries` as
    AttachPlan.compat_entries.
    """
    watched = compat and watch != "off"
    left_out = {"syscall_enter" if watched and not entries else "every_call"}
    if not (watched and watch == "full"):
        left_out.add("compat_exit")
    return frozenset(left_out)


def places(programs: Iterable[Program], plan: AttachPlan) -> Iterator[Place]:
    """Yields the places of a plan for these programs, first those that start tracking."""
    programs = [program for program in programs if plan.drift or not program.name.startswith("drift_")]
    yield from _guard_places(programs, plan)
    yield from _backstops(programs, plan)
    programs = [program for program in programs if not program.name.startswith("guard_")]
    for program in programs:
        kind, _, target = program.section.partition("/")
        # Learning programs are loaded only if they are wanted.
        if kind == "tp_btf" and (program.name.startswith("learn_") or _is_wanted(plan, target)):
            yield Place(program, kind, target)
    for program in programs:
        kind, _, target = program.section.partition("/")
        # Programs that follow tasks are attached regardless of rules, if they were loaded.
        if _follows(program, plan) or _is_hooked(program, kind, target, plan):
            yield Place(program, kind, target)
    entry = frozenset[str]() if plan.every_call else plan.entry | plan.guarded
    for program in programs:
        if program.name == NARROW_CALL and plan.compat:
            for function in sorted(plan.compat_entries):
                yield Place(program, "kprobe", function)
        for prefix, names in (("syscalls/sys_enter", entry), ("syscalls/sys_exit", plan.exit)):
            if program.section == f"tracepoint/{prefix}":
                for name in sorted(names):
                    yield Place(program, "tracepoint", f"{prefix}_{tracepoint(name)}")
        for name in sorted(plan.done):
            if program.section == f"tracepoint/syscalls/sys_exit_{tracepoint(name)}":
                yield Place(program, "tracepoint", program.section.removeprefix("tracepoint/"))
    for program in programs:
        kind, _, target = program.section.partition("/")
        if kind == "cgroup" and plan.cgroup_path and (plan.cgroup is None or target in plan.cgroup):
            yield Place(program, kind, target)


def _backstops(programs: Iterable[Program], plan: AttachPlan) -> Iterator[Place]:
    """Yields the places of the loaded backstops whose hooks are attached."""
    by_name = {program.name: program for program in programs}
    for program in programs:
        base = by_name.get(hook_program(program.name), program)
        kind, _, hook = base.section.partition("/")
        if base is not program and (
            (base.name.startswith("guard_") and plan.guard) or _is_hooked(base, kind, hook, plan)
        ):
            yield Place(program, "kprobe", hook if kind == "fentry" else function_of(hook))


def _guard_places(programs: Iterable[Program], plan: AttachPlan) -> Iterator[Place]:
    """Yields the places of the self-defence: of all its loaded programs, or none."""
    for program in programs:
        kind, _, target = program.section.partition("/")
        if not plan.guard or not program.name.startswith("guard_") or kind == "iter":
            continue
        if kind == "tracepoint":
            for name in sorted(plan.guarded_exit):
                yield Place(program, kind, f"{target}_{tracepoint(name)}")
        else:
            yield Place(program, kind, target)


def _follows(program: Program, plan: AttachPlan) -> bool:
    return program.name.startswith(("follow_", "born_")) and _is_wanted(plan, "sched_process_exec")


def _is_hooked(program: Program, kind: str, target: str, plan: AttachPlan) -> bool:
    if kind == "fentry" or program.name.startswith("checkpoint_"):
        return plan.checkpoints
    return kind == "lsm" and target in plan.lsm


def _is_wanted(plan: AttachPlan, target: str) -> bool:
    if target in ("sys_enter", "sys_exit"):
        return plan.every_call if target == "sys_enter" else plan.compat_exit
    if target == "module_request":
        return plan.requests
    return plan.tracing is None or target in plan.tracing


def attach_all(wanted: Iterable[Place], cgroup_path: str) -> Iterator[Attached | Skipped]:
    """Attaches lazily, one by one, so that the caller can undo earlier ones if one fails."""
    with ExitStack() as stack:
        tracefs: Tracefs | None = None
        cgroup = -1
        for place in wanted:
            if place.kind in ("tp_btf", "lsm", "fentry"):
                yield _attach_by_btf(place)
            elif place.kind == "kprobe":
                yield _attach_behind_entry(place)
            elif place.kind == "tracepoint":
                tracefs = tracefs or stack.enter_context(open_tracefs())
                yield _attach_tracepoint(place, tracefs)
            else:
                if cgroup < 0:
                    cgroup = os.open(cgroup_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    stack.callback(os.close, cgroup)
                yield _attach_cgroup(place, cgroup)


def _attach_by_btf(place: Place) -> Attached:
    try:
        link = _libbpf.raw_tracepoint_open(place.program.fd)
    except OSError as error:
        reason = _NOT_HERE[errno.E2BIG] if error.errno == errno.E2BIG else error.strerror
        raise OSError(error.errno, reason, f"{place.program.name} at {place.target}") from None
    return Attached(place.program.name, place.target, link)


def _attach_behind_entry(place: Place) -> Attached | Skipped:
    """Attaches a kprobe behind the call of the trampoline, so that it sees what tracing programs let pass."""
    try:
        event = kprobe_behind_entry(place.target)
    except OSError as failed:
        return Skipped(place.program.name, place.target, f"no kprobe behind its entry: {failed.strerror}")
    try:
        link = _libbpf.link_create(place.program.fd, event, _libbpf.ATTACH_PERF_EVENT)
        return Attached(place.program.name, place.target, link)
    finally:
        os.close(event)


def kprobe_behind_entry(function: str, *, counts: bool = False) -> int:
    """Returns a perf event of a kprobe behind the function's entry; `counts` as perf_event_open_kprobe.

    The entry has an instruction more with CONFIG_X86_KERNEL_IBT. OSError where none begins behind it.
    """
    failed = OSError(errno.EILSEQ, "no instruction begins behind its entry")
    for offset in _BEHIND_ENTRY:
        try:
            return _syscalls.perf_event_open_kprobe(kprobe_type(), function, offset, counts=counts)
        except OSError as error:
            failed = error
    raise failed


@cache
def kprobe_type() -> int:
    """Returns the type of perf's kprobe PMU; 0: this kernel has none (CONFIG_KPROBE_EVENTS)."""
    try:
        return int(Path("/sys/bus/event_source/devices/kprobe/type").read_text())
    except OSError:
        return 0


def _attach_tracepoint(place: Place, tracefs: Tracefs) -> Attached | Skipped:
    """Attaches to one of possibly many tracepoints. The link keeps the perf event (b89fbfbb854c, 5.15)."""
    number = tracefs.tracepoint_id(place.target)
    if number is None:
        return Skipped(place.program.name, place.target, "this kernel has no such tracepoint", absent=True)
    event = _syscalls.perf_event_open_tracepoint(number)
    try:
        link = _libbpf.link_create(place.program.fd, event, _libbpf.ATTACH_PERF_EVENT)
        return Attached(place.program.name, place.target, link)
    finally:
        os.close(event)


def _attach_cgroup(place: Place, cgroup: int) -> Attached | Skipped:
    """Attaches to a cgroup and its descendants; programs of other products stay attached."""
    program = place.program
    try:
        return Attached(
            program.name, place.target, _libbpf.link_create(program.fd, cgroup, program.attach_type)
        )
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        return Skipped(program.name, place.target, f"{_NOT_HERE[error.errno]}: {error.strerror}")


def run_iterator(program: Program) -> bytes:
    """Runs an `iter/` program once over everything and returns its output."""
    link = _libbpf.link_create(program.fd, 0, _libbpf.ATTACH_TRACE_ITER)
    try:
        with open(_libbpf.iter_create(link), "rb") as output:
            return output.read()
    finally:
        os.close(link)


def detach(links: Iterable[int]) -> None:
    """Closes links quickly.

    Closing the last descriptor of a tracepoint's link waits for an RCU grace period: 38 ms each, three
    seconds for an agent's system calls. A kernel worker frees a pinned link instead. So the links are
    pinned in a temporary detached bpffs and released with it: detached a few ms later.
    """
    links = list(links)
    try:
        bpffs = syscalls.mount_detached("bpf") if links else -1
    except OSError:
        bpffs = -1  # use the slow way
    for number, link in enumerate(links):
        if bpffs >= 0:
            with suppress(OSError):
                _libbpf.pin(link, f"/proc/self/fd/{bpffs}/{number}")
        os.close(link)
    if bpffs >= 0:
        os.close(bpffs)
