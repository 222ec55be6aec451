# SPDX-License-Identifier: Apache-2.0
"""The only ctypes in the runtime: system calls that Python lacks, under their kernel names.

Every function raises OSError with the call's name and the path that it concerned. Nobody above this module
sees ctypes, errno or a struct layout. Calls go through PyDLL: the interpreter lock is not given up, so that
a raw clone3 leaves the child with the lock held by its only thread, as fork does.
"""

from __future__ import annotations

import ctypes
import os
from _struct import Struct, pack, unpack_from

from ringfence_runtime._constants import *  # noqa: F403
from ringfence_runtime._constants import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    CLONE_INTO_CGROUP,
    CLONE_PARENT,
    CLONE_PIDFD,
    OPEN_TREE_CLOEXEC,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_libc = ctypes.PyDLL(None, use_errno=True)
_syscall = _libc["syscall"]
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, *([ctypes.c_void_p] * 6))

# Numbers from 424 up are the same on every architecture; the few below differ.
_MACHINE = os.uname().machine
_X86 = _MACHINE == "x86_64"
_NAMES = [
    "pivot_root",
    "mount",
    "umount2",
    "capset",
    "prctl",
    "setns",
    "unshare",
    "seccomp",
    "bpf",
    "ioprio_set",
    "sched_setattr",
    "keyctl",
    "personality",
    "set_mempolicy",
    "fstatfs",
    "execve",
    "capget",
    "execveat",
]
# fmt: off
_X86_64 = (
    155, 165, 166, 126, 157, 308, 272, 317, 321, 251, 314, 250, 135, 238, 138, 59, 125, 322,
)
_GENERIC = (
    41, 40, 39, 91, 167, 268, 97, 277, 280, 30, 274, 219, 92, 237, 44, 221, 90, 281,
)
# fmt: on
_OLD = dict(zip(_NAMES, _X86_64 if _X86 else _GENERIC, strict=True))

_OPEN_HOW = Struct("QQQ")
_MOUNT_ATTR = Struct("QQQQ")
_CLONE_ARGS = Struct("11Q")


def _path(path: str | bytes) -> bytes:
    return path if isinstance(path, bytes) else os.fsencode(path)


def _call(name: str, number: int, *args: object, path: str | bytes = "") -> int:
    result: int = _syscall(number, *args, *((0,) * (6 - len(args))))
    if result < 0:
        code = ctypes.get_errno()
        shown = os.fsdecode(path)
        raise OSError(code, f"{name}: {os.strerror(code)}", shown or None)
    return result


def clone3(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork with `flags`; returns (0, -1) in the child and (pid, pidfd) in the parent."""
    pidfd = ctypes.c_int(-1)
    into = CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0
    args = _CLONE_ARGS.pack(
        flags | CLONE_PIDFD | into,
        ctypes.addressof(pidfd),
        0,
        0,
        0 if flags & CLONE_PARENT else 17,
        0,
        0,
        0,
        0,
        0,
        max(cgroup_fd, 0),
    )
    pid = _call("clone3", 435, args, len(args))
    return (pid, pidfd.value) if pid else (0, -1)


def openat2(dirfd: int, path: str | bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dirfd` with the kernel's own resolution limits (openat2(2)); a race (EAGAIN) is
    retried.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(64):
        try:
            return _call("openat2", 437, dirfd, _path(path), how, len(how), path=path)
        except BlockingIOError:
            if attempt == 63:
                raise
    raise AssertionError("unreachable")


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """open_tree(2)."""
    return _call("open_tree", 428, dirfd, _path(path), flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(from_fd: int, to_fd: int, *, path: str | bytes = "") -> None:
    """Attach the mount `from_fd` exactly on the object that `to_fd` is open on (no path is walked)."""
    _call("move_mount", 429, from_fd, b"", to_fd, b"", 0x04 | 0x40, path=path)


def mount_attributes(on: int, off: int, propagation: int = 0, userns: int = 0) -> bytes:
    """struct mount_attr."""
    return _MOUNT_ATTR.pack(on, off, propagation, userns)


def mount_setattr(
    fd: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns: int = 0,
    recursive: bool = False,
    path: str | bytes = "",
) -> None:
    attr = mount_attributes(attr_set, attr_clr, propagation, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    _call("mount_setattr", 442, fd, b"", flags, attr, len(attr), path=path)


def fsopen(fstype: str) -> int:
    """fsopen(2)."""
    return _call("fsopen", 430, fstype.encode(), 1, path=fstype)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set a parameter with a value."""
    _call(f"fsconfig {key}", 431, fd, 1, key.encode(), os.fsencode(value), 0, path=value)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set a parameter without one."""
    _call(f"fsconfig {key}", 431, fd, 0, key.encode(), None, 0, path=key)


def fsconfig_create(fd: int) -> None:
    """Make the superblock."""
    _call("fsconfig create", 431, fd, 6, None, None, 0)


def fsmount(fd: int, attributes: int) -> int:
    """A detached mount of it."""
    return _call("fsmount", 432, fd, 1, attributes)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """mount(2), for what the newer calls cannot do."""
    _call(
        "mount",
        _OLD["mount"],
        source and os.fsencode(source),
        os.fsencode(target),
        fstype and fstype.encode(),
        flags,
        data and os.fsencode(data),
        path=target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    _call("umount2", _OLD["umount2"], os.fsencode(target), flags, path=target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _call("pivot_root", _OLD["pivot_root"], new.encode(), old.encode())


def setns(fd: int, flags: int, *, path: str = "") -> None:
    """setns(2)."""
    _call("setns", _OLD["setns"], fd, flags, path=path)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", _OLD["unshare"], flags)


def prctl(option: int, *args: int) -> int:
    """prctl(2)."""
    return _call("prctl", _OLD["prctl"], option, *args, *((0,) * (4 - len(args))))


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    return _call("pidfd_open", 434, pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2)."""
    _call("pidfd_send_signal", 424, pidfd, signal, None, 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2)."""
    return _call("pidfd_getfd", 438, pidfd, fd, 0)


def close_range(first: int, last: int = 0xFFFFFFFF, *, cloexec: bool = True) -> None:
    """close_range(2)."""
    _call("close_range", 436, first, last, 4 if cloexec else 0)


def fs_magic(fd: int) -> int:
    """The magic number of the filesystem that `fd` is on (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    _call("fstatfs", _OLD["fstatfs"], fd, buffer)
    magic: int = unpack_from("q", buffer.raw)[0]
    return magic & 0xFFFFFFFF


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets, given as bit masks (capset(2), version 3)."""
    low, high = 0xFFFFFFFF, 32
    data = pack(
        "6I",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    _call("capset", _OLD["capset"], pack("Ii", 0x20080522, 0), data)


def capget() -> tuple[int, int, int]:
    """This thread's (effective, permitted, inheritable) capability masks."""
    buffer = ctypes.create_string_buffer(24)
    _call("capget", _OLD["capget"], pack("Ii", 0x20080522, 0), buffer)
    words = unpack_from("6I", buffer.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def seccomp_filter(program: bytes, flags: int) -> int:
    """Install a classic BPF filter, given as packed sock_filter; returns the listener's fd if one was asked
    for.
    """
    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    return _call("seccomp", _OLD["seccomp"], 1, flags, fprog)


def bpf(command: int, attributes: bytes | int, size: int = 0) -> int:
    """bpf(2); `attributes` are bytes, or the address of `size` bytes that the kernel writes back to."""
    return _call("bpf", _OLD["bpf"], command, attributes, size or len(attributes))  # type: ignore[arg-type]


def ioprio_set(klass: int, level: int) -> None:
    """ioprio_set(2) for this thread."""
    _call("ioprio_set", _OLD["ioprio_set"], 1, 0, klass << 13 | level)


def sched_setattr(attributes: bytes) -> None:
    """sched_setattr(2) for this thread."""
    _call("sched_setattr", _OLD["sched_setattr"], 0, attributes, 0)


def set_mempolicy(mode: int, nodemask: bytes, bits: int) -> None:
    """set_mempolicy(2)."""
    _call("set_mempolicy", _OLD["set_mempolicy"], mode, nodemask or None, bits)


def personality(persona: int) -> None:
    """personality(2)."""
    _call("personality", _OLD["personality"], persona)


def keyctl_join_session(name: str) -> int:
    """Join a new session keyring of this name."""
    return _call("keyctl", _OLD["keyctl"], 1, name.encode())


def keyctl_describe_perm(key: int) -> int:
    """The permission mask of a key (KEYCTL_DESCRIBE: `type;uid;gid;perm;name`)."""
    buffer = ctypes.create_string_buffer(512)
    _call("keyctl", _OLD["keyctl"], 6, key, buffer, 512)
    return int(buffer.value.split(b";")[3], 16)


def keyctl_setperm(key: int, permissions: int) -> None:
    """Set the permission mask of a key."""
    _call("keyctl", _OLD["keyctl"], 5, key, permissions)


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    try:
        return _call("landlock_create_ruleset", 444, None, 0, 1)
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2)."""
    return _call("landlock_create_ruleset", 444, attributes, len(attributes), 0)


def landlock_add_rule(ruleset: int, kind: int, rule: bytes) -> None:
    """landlock_add_rule(2)."""
    _call("landlock_add_rule", 445, ruleset, kind, rule, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2)."""
    _call("landlock_restrict_self", 446, ruleset, 0)


class Exec:
    """An execve whose arguments are laid out beforehand, so that nothing is allocated after seccomp is in
    force.
    """

    def __init__(self, path: str | int, argv: Sequence[str], env: Sequence[str]) -> None:
        self.fd = path if isinstance(path, int) else -1
        self.path = ctypes.create_string_buffer(b"" if isinstance(path, int) else os.fsencode(path))
        self.argv = self._vector(argv)
        self.env = self._vector(env)

    @staticmethod
    def _vector(items: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
        return (ctypes.c_char_p * (len(items) + 1))(*[os.fsencode(item) for item in items], None)

    def __call__(self) -> int:
        """Run it; returns only on failure, with errno."""
        if self.fd >= 0:
            _syscall(_OLD["execveat"], self.fd, self.path, self.argv, self.env, AT_EMPTY_PATH, 0)
        else:
            _syscall(_OLD["execve"], self.path, self.argv, self.env, 0, 0, 0)
        return ctypes.get_errno()


def execveat(fd: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """Execute the file that `fd` is open on; returns only by raising."""
    vector = Exec._vector
    _call("execveat", _OLD["execveat"], fd, b"", vector(argv), vector(env), AT_EMPTY_PATH)


def load_library(name: str, signatures: dict[str, tuple[str, str]]) -> dict[str, object]:
    """Functions of a shared library by name: signature = (result, arguments) in letters i (int), I
    (uint32), p, s, v.
    """
    kinds: dict[str, Any] = {
        "i": ctypes.c_int,
        "I": ctypes.c_uint32,
        "p": ctypes.c_void_p,
        "s": ctypes.c_char_p,
        "v": None,
        "Q": ctypes.c_uint64,
    }
    library = ctypes.CDLL(name)
    functions: dict[str, object] = {}
    for function, (result, arguments) in signatures.items():
        bound = library[function]
        bound.restype = kinds[result]
        bound.argtypes = tuple(kinds[letter] for letter in arguments)
        functions[function] = bound
    return functions


def fchownat_empty(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what an O_PATH descriptor is open on."""
    _call("fchownat", 260 if _X86 else 54, fd, b"", uid, gid, AT_EMPTY_PATH)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = os.fsencode(name)
    _call("setdomainname", 171 if _X86 else 162, data, len(data), path=name)
