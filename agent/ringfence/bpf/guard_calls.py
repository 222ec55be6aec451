# SPDX-License-Identifier: Apache-2.0
"""The self-defence's system calls and LSM hooks. The kernel side is probes/include/guard.h.

The calls are those that can affect the agent, and the argument by which they do, for kernels where LSM
hooks do not decide. A call is seen at its entry with its target: a process by its pid, a file by its
path. probes/self.bpf.c explains which of these are certain.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from ringfence.abi import (
    COMPAT_BASE,
    GUARDED_CALL,
    GUARDED_FILE,
    GUARDED_IO_PRIORITY,
    GUARDED_LOAD,
    GUARDED_NONE,
    GUARDED_PATHS,
    GUARDED_PIDFD,
    GUARDED_PRIORITY,
    GUARDED_PROCESS,
    Tamper,
)
from ringfence_linux.architecture import Architecture, architecture
from ringfence_linux.numbers import NUMBERS

__all__ = [
    "CALLS",
    "COMPAT_ALIASES",
    "EXITS",
    "LOOKS",
    "LSM_HOOKS",
    "REQUIRED_HOOKS",
    "call_entries",
    "file_name_hash",
    "name_hash",
]

_ = GUARDED_NONE


class _Guarded(NamedTuple):
    """struct rf_guarded_call."""

    how: int
    what: Tamper
    arguments: tuple[int, int, int, int]
    needs: int = GUARDED_NONE

    def pack(self) -> bytes:
        return GUARDED_CALL.pack(self.how, self.what, self.needs, bytes(self.arguments))


def _process(argument: int, what: Tamper, *, needs: int = GUARDED_NONE) -> _Guarded:
    return _Guarded(GUARDED_PROCESS, what, (argument, _, _, _), needs)


def _paths(first: tuple[int, int], second: tuple[int, int] = (_, _), what: Tamper = Tamper.FILE) -> _Guarded:
    """`first` and `second`: the argument that is the directory, and the one that is the path."""
    return _Guarded(GUARDED_PATHS, what, (*first, *second))


_PRIORITY, _TRACE = Tamper.PRIORITY, Tamper.TRACE

#: name as in syscalls(2) -> what is checked
CALLS: dict[str, _Guarded] = {
    "prlimit64": _process(0, Tamper.LIMIT, needs=2),
    "sched_setscheduler": _process(0, _PRIORITY),
    "sched_setparam": _process(0, _PRIORITY),
    "sched_setattr": _process(0, _PRIORITY),
    "sched_setaffinity": _process(0, _PRIORITY),
    "migrate_pages": _process(0, _PRIORITY),
    "move_pages": _process(0, _PRIORITY),
    "setpriority": _Guarded(GUARDED_PRIORITY, _PRIORITY, (0, 1, _, _)),
    "ioprio_set": _Guarded(GUARDED_IO_PRIORITY, _PRIORITY, (0, 1, _, _)),
    "ptrace": _process(1, _TRACE),
    "process_vm_readv": _process(0, _TRACE),
    "process_vm_writev": _process(0, _TRACE),
    "process_madvise": _Guarded(GUARDED_PIDFD, _TRACE, (0, _, _, _)),
    "pidfd_getfd": _Guarded(GUARDED_PIDFD, _TRACE, (0, _, _, _)),
    "perf_event_open": _process(1, _TRACE),
    "bpf": _Guarded(GUARDED_LOAD, Tamper.LOAD, (0, _, _, _)),
    "umount2": _paths((_, 0), what=Tamper.MOUNT),
    "unlink": _paths((_, 0)),
    "unlinkat": _paths((0, 1)),
    "rmdir": _paths((_, 0)),
    "rename": _paths((_, 0), (_, 1)),
    "renameat": _paths((0, 1), (2, 3)),
    "renameat2": _paths((0, 1), (2, 3)),
    "link": _paths((_, 0), (_, 1)),
    "linkat": _paths((0, 1), (2, 3)),
    "symlink": _paths((_, 1)),
    "symlinkat": _paths((1, 2)),
    "mkdir": _paths((_, 0)),
    "mkdirat": _paths((0, 1)),
    "mknod": _paths((_, 0)),
    "mknodat": _paths((0, 1)),
    "truncate": _paths((_, 0)),
    "chmod": _paths((_, 0)),
    "fchmodat": _paths((0, 1)),
    "fchmodat2": _paths((0, 1)),
    "chown": _paths((_, 0)),
    "lchown": _paths((_, 0)),
    "fchownat": _paths((0, 1)),
    "fchmod": _Guarded(GUARDED_FILE, Tamper.FILE, (0, _, _, _)),
    "fchown": _Guarded(GUARDED_FILE, Tamper.FILE, (0, _, _, _)),
}

#: calls that return a new descriptor, which is checked at their exit, besides opens
EXITS = ("bpf",)

#: 32-bit x86 has a second number for these calls
COMPAT_ALIASES = {"truncate64": "truncate", "chown32": "chown", "lchown32": "lchown", "fchown32": "fchown"}

#: files of /proc/PID that only a permitted tracer can open, and what opening them means
LOOKS = {
    "mem": Tamper.TRACE,
    **dict.fromkeys(
        ("auxv", "environ", "fd", "fdinfo", "io", "map_files", "maps", "ns", "numa_maps", "pagemap",
         "personality", "smaps", "smaps_rollup", "stack", "syscall"),
        Tamper.LOOK,
    ),
}  # fmt: skip

#: without these LSM hooks, calls and opens are checked instead
REQUIRED_HOOKS = frozenset(
    (
        "bpf", "bpf_map", "bpf_prog", "file_open", "path_rename", "path_rmdir", "path_unlink",
        "ptrace_access_check", "sb_umount", "task_kill", "task_setrlimit", "task_setscheduler",
        "unix_stream_connect",
    )
)  # fmt: skip
#: all hooks with a program in probes/lsm_self.bpf.c
LSM_HOOKS = REQUIRED_HOOKS | {
    "file_send_sigiotask", "path_chmod", "path_chown", "path_link", "path_mkdir", "path_mknod",
    "path_symlink", "path_truncate", "sb_remount", "task_movememory", "task_setioprio", "task_setnice",
    "unix_may_send",
}  # fmt: skip


def indices(numbers: Sequence[int | None], arch: Architecture) -> Iterator[int]:
    """Yields a call's indices in the tables of calls: native, and of 32-bit callers. `numbers`: its row."""
    if (native := numbers[arch.native]) is not None:
        yield native
    if arch.compat is not None and (compat := numbers[arch.compat]) is not None:
        yield COMPAT_BASE + compat


def call_entries(names: Collection[str], machine: str = "") -> Iterator[tuple[int, bytes]]:
    """Yields (index, value) of the map `guarded_calls` for these calls, like syscalls.entries."""
    arch = architecture(machine)
    for name, numbers in NUMBERS.items():
        meant = COMPAT_ALIASES.get(name, name)
        if meant not in names or meant not in CALLS:
            continue
        for index in indices(numbers, arch):
            yield index, CALLS[meant].pack()


def file_name_hash(name: bytes) -> int:
    """Returns FNV-1a of a name, like rf_hash_name."""
    return _fnv(name)


def name_hash(text: bytes) -> int:
    """Returns FNV-1a of a text read from its end, like rf_path_may_be_guarded."""
    return _fnv(text[::-1])


def _fnv(text: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
