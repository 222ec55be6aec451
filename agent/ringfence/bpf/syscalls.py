# SPDX-License-Identifier: Apache-2.0
"""The system calls that are events: the operands that the probes read from each, and its numbers.

The Python counterpart of probes/include/compat.h: nothing else contains system call numbers. The
operands' names in policies are in ringfence.policy.vocabulary; a test compares the dims.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ringfence.abi import (
    OPERANDS,
    SYSCALL,
    SYSCALL_GUARDED,
    SYSCALL_HOOKED,
    Counter,
    EventKind,
    OperandSource,
)
from ringfence.bpf import guard_calls as guarded_calls
from ringfence_linux.architecture import architecture
from ringfence_linux.numbers import NUMBERS

__all__ = [
    "CALLS",
    "DONE",
    "OPENS",
    "STRINGS",
    "Syscall",
    "entries",
    "kinds_of",
    "names_of",
    "operand_dims",
    "tracepoint",
]

_Source = tuple[OperandSource, int]


class Syscall(NamedTuple):
    """One call. `operands` has an entry for each dim: the source of the value, and the argument.

    `strings` are the arguments that are strings, as STRINGS names them: the first may decide, the others are
    in alerts only.
    """

    kind: EventKind
    counter: Counter
    strings: tuple[int, ...]
    operands: tuple[_Source, ...]

    def pack(self, *, hooked: bool = False, guarded: bool = False) -> bytes:
        """Packs struct rf_syscall.

        `hooked`: an LSM hook decides it, and its entry is ignored. `guarded`: the self-defence checks it.
        """
        filled = (*self.operands, *((OperandSource.NOTHING, 0),) * (OPERANDS - len(self.operands)))
        sources, arguments = bytes(s for s, _ in filled), bytes(a for _, a in filled)
        kind = self.kind | (SYSCALL_HOOKED if hooked else 0) | (SYSCALL_GUARDED if guarded else 0)
        text, *more = (*self.strings, -1, -1, -1)[:3]
        return SYSCALL.pack(kind, self.counter, text, sources, arguments, *more)


def _arg(index: int) -> _Source:
    return OperandSource.ARG32, index


def _long(index: int) -> _Source:
    return OperandSource.ARG, index


def _const(number: int) -> _Source:
    return OperandSource.CONST, number


_NOTHING: _Source = (OperandSource.NOTHING, 0)
_K, _C, _S = EventKind, Counter, OperandSource


def _call(kind: EventKind, counter: Counter, *operands: _Source, strings: tuple[int, ...] = ()) -> Syscall:
    return Syscall(kind, counter, strings, operands)


_LOOKS, _CHANGES, _BY_CALL = 1, 2, 1  # `mode` and `via` of process.look: ringfence.policy.vocabulary


def _look(counter: Counter, mode: int, target: OperandSource = _S.PID_TARGET) -> Syscall:
    """A call on another process, which is the first argument."""
    return _call(_K.PROCESS_LOOK, counter, _const(mode), (target, 0), _const(_BY_CALL))


#: Name as in syscalls(2). Several names can be one event: operand `call` distinguishes them if needed.
#: fork and vfork are not listed: they have no flags, and PROCESS_FORK counts them.
CALLS: dict[str, Syscall] = {
    "clone": _call(_K.SYS_CLONE, _C.SYS_PROCESS, _long(0)),
    "clone3": _call(_K.SYS_CLONE, _C.SYS_PROCESS, (_S.USER_U64, 0)),
    "unshare": _call(_K.SYS_UNSHARE, _C.SYS_NAMESPACE, _long(0)),
    "setns": _call(_K.SYS_SETNS, _C.SYS_NAMESPACE, (_S.SETNS_TYPE, 0), (_S.SETNS_TARGET, 0)),
    "mount": _call(_K.SYS_MOUNT, _C.SYS_MOUNT, (_S.MOUNT_FLAGS, 3), strings=(2, 0, 1)),
    "umount2": _call(_K.SYS_UMOUNT, _C.SYS_MOUNT, _arg(1), strings=(0,)),
    "oldumount": _call(_K.SYS_UMOUNT, _C.SYS_MOUNT, strings=(0,)),
    "pivot_root": _call(_K.SYS_PIVOT_ROOT, _C.SYS_MOUNT, strings=(0, 1)),
    # Its target is not known before its exit: see DONE.
    "chroot": _call(_K.SYS_CHROOT, _C.SYS_MOUNT, (_S.CHROOTED, 0), _const(0), strings=(0,)),
    "fsopen": _call(_K.SYS_FSOPEN, _C.SYS_MOUNT, strings=(0,)),
    "fsconfig": _call(_K.SYS_FSCONFIG, _C.SYS_MOUNT, _arg(1), strings=(2, 3)),
    "fsmount": _call(_K.SYS_FSMOUNT, _C.SYS_MOUNT),
    "fspick": _call(_K.SYS_FSPICK, _C.SYS_MOUNT, strings=(1,)),
    "open_tree": _call(_K.SYS_OPEN_TREE, _C.SYS_MOUNT, _arg(2), strings=(1,)),
    "move_mount": _call(_K.SYS_MOVE_MOUNT, _C.SYS_MOUNT, _arg(4), strings=(3, 1)),
    "mount_setattr": _call(_K.SYS_MOUNT_SETATTR, _C.SYS_MOUNT, _arg(2), strings=(1,)),
    # Without OPEN_TREE_CLONE it changes the mount that it finds.
    "open_tree_attr": _call(_K.SYS_MOUNT_SETATTR, _C.SYS_MOUNT, _arg(2), strings=(1,)),
    "ptrace": _call(_K.SYS_PTRACE, _C.SYS_TRACE, _long(0), (_S.PID_TARGET, 1)),
    "process_vm_readv": _call(_K.SYS_PROCESS_VM, _C.SYS_TRACE, _const(1), (_S.PID_TARGET, 0)),
    "process_vm_writev": _call(_K.SYS_PROCESS_VM, _C.SYS_TRACE, _const(2), (_S.PID_TARGET, 0)),
    "process_madvise": _call(_K.SYS_PROCESS_VM, _C.SYS_TRACE, _const(3), (_S.PIDFD_TARGET, 0)),
    "pidfd_getfd": _call(_K.SYS_PIDFD_GETFD, _C.SYS_TRACE, (_S.PIDFD_TARGET, 0)),
    "kill": _call(_K.SYS_SIGNAL, _C.SYS_PROCESS, _arg(1), (_S.SIGNAL_TARGET, 0)),
    "tkill": _call(_K.SYS_SIGNAL, _C.SYS_PROCESS, _arg(1), (_S.PID_TARGET, 0)),
    "tgkill": _call(_K.SYS_SIGNAL, _C.SYS_PROCESS, _arg(2), (_S.PID_TARGET, 1)),
    "rt_sigqueueinfo": _call(_K.SYS_SIGNAL, _C.SYS_PROCESS, _arg(1), (_S.PID_TARGET, 0)),
    "rt_tgsigqueueinfo": _call(_K.SYS_SIGNAL, _C.SYS_PROCESS, _arg(2), (_S.PID_TARGET, 1)),
    "pidfd_send_signal": _call(_K.SYS_SIGNAL, _C.SYS_PROCESS, _arg(1), (_S.PIDFD_TARGET, 0)),
    "kcmp": _look(_C.SYS_TRACE, _LOOKS, _S.PIDS_TARGET),
    "get_robust_list": _look(_C.SYS_TRACE, _LOOKS),
    "move_pages": _look(_C.SYS_TRACE, _LOOKS),
    "prlimit64": _look(_C.SYS_PROCESS, _CHANGES),
    "sched_setscheduler": _look(_C.SYS_PROCESS, _CHANGES),
    "sched_setparam": _look(_C.SYS_PROCESS, _CHANGES),
    "sched_setattr": _look(_C.SYS_PROCESS, _CHANGES),
    "sched_setaffinity": _look(_C.SYS_PROCESS, _CHANGES),
    "setpriority": _look(_C.SYS_PROCESS, _CHANGES, _S.PRIORITY_TARGET),
    "ioprio_set": _look(_C.SYS_PROCESS, _CHANGES, _S.IOPRIORITY_TARGET),
    "migrate_pages": _look(_C.SYS_TRACE, _LOOKS),
    "bpf": _call(_K.SYS_BPF, _C.SYS_KERNEL, _arg(0)),
    "perf_event_open": _call(_K.SYS_PERF_EVENT_OPEN, _C.SYS_KERNEL, (_S.PERF_TARGET, 1)),
    "init_module": _call(_K.SYS_MODULE_LOAD, _C.SYS_KERNEL, _const(1), strings=(2,)),
    "finit_module": _call(_K.SYS_MODULE_LOAD, _C.SYS_KERNEL, _const(2), strings=(1,)),
    "delete_module": _call(_K.SYS_MODULE_UNLOAD, _C.SYS_KERNEL, strings=(0,)),
    "kexec_load": _call(_K.SYS_KEXEC, _C.SYS_KERNEL),
    "kexec_file_load": _call(_K.SYS_KEXEC, _C.SYS_KERNEL),
    "capset": _call(_K.SYS_CAPSET, _C.SYS_CREDENTIAL),
    "setuid": _call(_K.SYS_SETUID, _C.SYS_CREDENTIAL, _arg(0), _const(1)),
    "setreuid": _call(_K.SYS_SETUID, _C.SYS_CREDENTIAL, _arg(0), _const(2)),
    "setresuid": _call(_K.SYS_SETUID, _C.SYS_CREDENTIAL, _arg(0), _const(3)),
    "setfsuid": _call(_K.SYS_SETUID, _C.SYS_CREDENTIAL, _arg(0), _const(4)),
    "setgid": _call(_K.SYS_SETGID, _C.SYS_CREDENTIAL, _arg(0), _const(1)),
    "setregid": _call(_K.SYS_SETGID, _C.SYS_CREDENTIAL, _arg(0), _const(2)),
    "setresgid": _call(_K.SYS_SETGID, _C.SYS_CREDENTIAL, _arg(0), _const(3)),
    "setfsgid": _call(_K.SYS_SETGID, _C.SYS_CREDENTIAL, _arg(0), _const(4)),
    "setgroups": _call(_K.SYS_SETGID, _C.SYS_CREDENTIAL, _NOTHING, _const(5)),
    "open_by_handle_at": _call(_K.SYS_OPEN_BY_HANDLE_AT, _C.SYS_FILE, _arg(2)),
    "memfd_create": _call(_K.SYS_MEMFD_CREATE, _C.SYS_MEMORY, _arg(1), _const(1), strings=(0,)),
    "memfd_secret": _call(_K.SYS_MEMFD_CREATE, _C.SYS_MEMORY, _arg(0), _const(2)),
    "userfaultfd": _call(_K.SYS_USERFAULTFD, _C.SYS_MEMORY, _arg(0)),
    "io_uring_setup": _call(_K.SYS_IO_URING_SETUP, _C.SYS_KERNEL, _arg(0)),
    "keyctl": _call(_K.SYS_KEYCTL, _C.SYS_KEYRING, _arg(0), _const(1)),
    "add_key": _call(_K.SYS_KEYCTL, _C.SYS_KEYRING, _NOTHING, _const(2), strings=(0, 1)),
    "request_key": _call(_K.SYS_KEYCTL, _C.SYS_KEYRING, _NOTHING, _const(3), (_S.ARG_SET, 2), strings=(0, 1)),
    "mknod": _call(_K.SYS_MKNOD, _C.SYS_FILE, (_S.DEV_TYPE, 1), strings=(0,)),
    "mknodat": _call(_K.SYS_MKNOD, _C.SYS_FILE, (_S.DEV_TYPE, 2), strings=(1,)),
    "socket": _call(_K.SYS_SOCKET, _C.SYS_SOCKET, (_S.SOCKET_FAMILY, 0), _arg(1), _arg(2)),
    "socketpair": _call(_K.SYS_SOCKET, _C.SYS_SOCKET, (_S.SOCKET_FAMILY, 0), _arg(1), _arg(2)),
    "iopl": _call(_K.SYS_IOPL, _C.SYS_KERNEL, _const(1), _arg(0)),
    "ioperm": _call(_K.SYS_IOPL, _C.SYS_KERNEL, _const(2), _arg(2)),
    "syslog": _call(_K.SYS_SYSLOG, _C.SYS_KERNEL, _arg(0)),
    "reboot": _call(_K.SYS_REBOOT, _C.SYS_KERNEL, _arg(2)),
    "swapon": _call(_K.SYS_SWAP, _C.SYS_KERNEL, _const(1), strings=(0,)),
    "swapoff": _call(_K.SYS_SWAP, _C.SYS_KERNEL, _const(2), strings=(0,)),
    "settimeofday": _call(_K.SYS_SETTIME, _C.SYS_KERNEL, _const(1), _const(1)),
    "clock_settime": _call(_K.SYS_SETTIME, _C.SYS_KERNEL, _const(2), _const(1)),
    # Without a mode bit they only read the clock's state.
    "adjtimex": _call(_K.SYS_SETTIME, _C.SYS_KERNEL, _const(3), (_S.USER_U32_SET, 0)),
    "clock_adjtime": _call(_K.SYS_SETTIME, _C.SYS_KERNEL, _const(4), (_S.USER_U32_SET, 1)),
    "chmod": _call(_K.SYS_CHMOD, _C.SYS_FILE, _arg(1), strings=(0,)),
    "fchmod": _call(_K.SYS_CHMOD, _C.SYS_FILE, _arg(1)),
    "fchmodat": _call(_K.SYS_CHMOD, _C.SYS_FILE, _arg(2), strings=(1,)),
    "fchmodat2": _call(_K.SYS_CHMOD, _C.SYS_FILE, _arg(2), strings=(1,)),
    "ioctl": _call(_K.SYS_IOCTL, _C.SYS_FILE, _arg(1), (_S.FD_TREE, 0)),
    "splice": _call(_K.SYS_SPLICE, _C.SYS_FILE, _const(1), (_S.FD_SETUID, 0)),
    "vmsplice": _call(_K.SYS_SPLICE, _C.SYS_FILE, _const(2)),
    "tee": _call(_K.SYS_SPLICE, _C.SYS_FILE, _const(3)),
    "symlink": _call(_K.SYS_SYMLINK, _C.SYS_FILE, strings=(0, 1)),
    "symlinkat": _call(_K.SYS_SYMLINK, _C.SYS_FILE, strings=(0, 2)),
    "renameat2": _call(_K.SYS_RENAME, _C.SYS_FILE, _arg(4), strings=(3, 1)),
    "setxattr": _call(_K.SYS_SETXATTR, _C.SYS_FILE, strings=(1, 0)),
    "lsetxattr": _call(_K.SYS_SETXATTR, _C.SYS_FILE, strings=(1, 0)),
    "fsetxattr": _call(_K.SYS_SETXATTR, _C.SYS_FILE, strings=(1,)),
    "setxattrat": _call(_K.SYS_SETXATTR, _C.SYS_FILE, strings=(3, 1)),
    "personality": _call(_K.SYS_PERSONALITY, _C.SYS_PROCESS, _arg(0)),
    "seccomp": _call(_K.SYS_SECCOMP, _C.SYS_PROCESS, _arg(0)),
    "acct": _call(_K.SYS_ACCT, _C.SYS_KERNEL, strings=(0,)),
    "quotactl": _call(_K.SYS_QUOTACTL, _C.SYS_KERNEL, _arg(0), strings=(1,)),
    "quotactl_fd": _call(_K.SYS_QUOTACTL, _C.SYS_KERNEL, _arg(1)),
    "fanotify_init": _call(_K.SYS_FANOTIFY_INIT, _C.SYS_FILE, _arg(0)),
    # Before an exec its caller is checked for drift: exec makes changed credentials legitimate.
    "execve": _call(_K.TASK_DRIFT, _C.NONE),
    "execveat": _call(_K.TASK_DRIFT, _C.NONE),
    "sethostname": _call(_K.SYS_SETDOMAIN, _C.SYS_KERNEL, _const(1)),
    "setdomainname": _call(_K.SYS_SETDOMAIN, _C.SYS_KERNEL, _const(2)),
}

#: The names of the strings of a call, in the order of `strings`: those of policies, where there are.
STRINGS: dict[EventKind, tuple[str, ...]] = {
    _K.SYS_MOUNT: ("fstype", "source", "target"),
    _K.SYS_UMOUNT: ("target",),
    _K.SYS_PIVOT_ROOT: ("new_root", "put_old"),
    _K.SYS_CHROOT: ("path",),
    _K.SYS_FSOPEN: ("fstype",),
    _K.SYS_FSCONFIG: ("key", "value"),
    _K.SYS_FSPICK: ("path",),
    _K.SYS_OPEN_TREE: ("path",),
    _K.SYS_MOVE_MOUNT: ("target", "source"),
    _K.SYS_MOUNT_SETATTR: ("path",),
    _K.SYS_MODULE_LOAD: ("parameters",),
    _K.SYS_MODULE_UNLOAD: ("name",),
    _K.SYS_MEMFD_CREATE: ("name",),
    _K.SYS_KEYCTL: ("type", "description"),
    _K.SYS_MKNOD: ("path",),
    _K.SYS_SWAP: ("path",),
    _K.SYS_CHMOD: ("path",),
    _K.SYS_SYMLINK: ("target", "path"),
    _K.SYS_RENAME: ("path", "source"),
    _K.SYS_SETXATTR: ("name", "path"),
    _K.SYS_ACCT: ("path",),
    _K.SYS_QUOTACTL: ("device",),
    _K.MODULE_REQUEST: ("name",),
}

_NO_EVENT = _call(_K.NONE, _C.NONE)

#: The calls with file.open decided at their exit.
OPENS = ("open", "openat", "openat2", "creat", "open_by_handle_at")

#: The calls with a separate program at their exit: their result is an operand, or is checked there.
DONE = ("chroot", "setns", "unshare")

#: 32-bit x86 has a second number for some calls, under a different name.
_COMPAT_ALIASES = {
    f"{name}32": name
    for name in (
        "setuid",
        "setreuid",
        "setresuid",
        "setfsuid",
        "setgid",
        "setregid",
        "setresgid",
        "setfsgid",
        "setgroups",
    )
} | {"socketcall": "socket", "clock_settime64": "clock_settime", "clock_adjtime64": "clock_adjtime"}

#: Calls for which the kernel's function, and so the tracepoint, has a different name.
_TRACEPOINTS = {"umount2": "umount"}


def tracepoint(name: str) -> str:
    """Returns the X of a call's tracepoints sys_enter_X and sys_exit_X."""
    return _TRACEPOINTS.get(name, name)


def names_of(kinds: Iterable[EventKind]) -> list[str]:
    """Returns the calls that are events of these kinds."""
    wanted = frozenset(kinds)
    return [name for name, call in CALLS.items() if call.kind in wanted]


def kinds_of(names: Iterable[str]) -> frozenset[EventKind]:
    """Returns the event kinds of these calls."""
    return frozenset(CALLS[name].kind for name in names if name in CALLS)


def operand_dims(kind: EventKind) -> frozenset[int]:
    """Returns the dims that any call of that kind fills in."""
    calls = (call for call in CALLS.values() if call.kind is kind)
    return frozenset(dim for call in calls for dim, source in enumerate(call.operands) if source != _NOTHING)


def entries(
    names: Iterable[str], machine: str = "", hooked: Iterable[str] = (), guarded: Iterable[str] = ()
) -> Iterator[tuple[int, bytes]]:
    """Yields (index, value) of the map `syscalls` for these calls, native and 32-bit.

    Calls that the architecture lacks are omitted. `machine` is uname -m, empty: this one. `hooked` are
    more calls, decided by LSM hooks; `guarded` are those that the self-defence checks, events or not.
    """
    by_hook, watched = frozenset(hooked), frozenset(guarded)
    wanted = frozenset(names) | by_hook
    arch = architecture(machine)
    for name, numbers in NUMBERS.items():
        meant = _COMPAT_ALIASES.get(name) or guarded_calls.COMPAT_ALIASES.get(name, name)
        call = CALLS.get(meant, _NO_EVENT) if meant in wanted else _NO_EVENT
        if call is _NO_EVENT and meant not in watched:
            continue
        value = call.pack(hooked=meant in by_hook, guarded=meant in watched)
        for index in guarded_calls.indices(numbers, arch):
            yield index, value
