# SPDX-License-Identifier: Apache-2.0
"""System calls that Python lacks, by their kernel names. With `_calls` and `_sys_security` the only users of
ctypes.

Every function raises OSError with the call's name and the path that it concerned. No module above sees
ctypes, errno or a struct layout.
"""

from __future__ import annotations

import ctypes
import os
from _struct import Struct, unpack_from

from ringfence_runtime._calls import OLD, X86, as_bytes, call, syscall
from ringfence_runtime._constants import *  # noqa: F403
from ringfence_runtime._constants import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    CLONE_INTO_CGROUP,
    CLONE_PARENT,
    CLONE_PIDFD,
    OPEN_TREE_CLOEXEC,
)
from ringfence_runtime._sys_security import *  # noqa: F403

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_OPEN_HOW = Struct("QQQ")
_MOUNT_ATTR = Struct("QQQQ")
_CLONE_ARGS = Struct("11Q")


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
    pid = call("clone3", 435, args, len(args))
    return (pid, pidfd.value) if pid else (0, -1)


def openat2(dirfd: int, path: str | bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dirfd` with the kernel's own resolution limits (openat2(2)); a race (EAGAIN) is
    retried.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(64):
        try:
            return call("openat2", 437, dirfd, as_bytes(path), how, len(how), path=path)
        except BlockingIOError:
            if attempt == 63:
                raise
    raise AssertionError("unreachable")


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """open_tree(2)."""
    return call("open_tree", 428, dirfd, as_bytes(path), flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(from_fd: int, to_fd: int, *, path: str | bytes = "") -> None:
    """Attach the mount `from_fd` exactly on the object that `to_fd` is open on (no path is walked)."""
    call("move_mount", 429, from_fd, b"", to_fd, b"", 0x04 | 0x40, path=path)


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
    call("mount_setattr", 442, fd, b"", flags, attr, len(attr), path=path)


def fsopen(fstype: str) -> int:
    """fsopen(2)."""
    return call("fsopen", 430, fstype.encode(), 1, path=fstype)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set a parameter with a value."""
    call(f"fsconfig {key}", 431, fd, 1, key.encode(), os.fsencode(value), 0, path=value)


def fsconfig_flag(fd: int, key: str) -> None:
    """Set a parameter without one."""
    call(f"fsconfig {key}", 431, fd, 0, key.encode(), None, 0, path=key)


def fsconfig_create(fd: int) -> None:
    """Make the superblock."""
    call("fsconfig create", 431, fd, 6, None, None, 0)


def fsmount(fd: int, attributes: int) -> int:
    """A detached mount of it."""
    return call("fsmount", 432, fd, 1, attributes)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """mount(2), for what the newer calls cannot do."""
    call(
        "mount",
        OLD["mount"],
        source and os.fsencode(source),
        os.fsencode(target),
        fstype and fstype.encode(),
        flags,
        data and os.fsencode(data),
        path=target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    call("umount2", OLD["umount2"], os.fsencode(target), flags, path=target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    call("pivot_root", OLD["pivot_root"], new.encode(), old.encode())


def setns(fd: int, flags: int, *, path: str = "") -> None:
    """setns(2)."""
    call("setns", OLD["setns"], fd, flags, path=path)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", OLD["unshare"], flags)


def prctl(option: int, *args: int) -> int:
    """prctl(2)."""
    return call("prctl", OLD["prctl"], option, *args, *((0,) * (4 - len(args))))


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    return call("pidfd_open", 434, pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2)."""
    call("pidfd_send_signal", 424, pidfd, signal, None, 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2)."""
    return call("pidfd_getfd", 438, pidfd, fd, 0)


def close_range(first: int, last: int = 0xFFFFFFFF, *, cloexec: bool = True) -> None:
    """close_range(2)."""
    call("close_range", 436, first, last, 4 if cloexec else 0)


def fs_magic(fd: int) -> int:
    """The magic number of the filesystem that `fd` is on (statfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    call("fstatfs", OLD["fstatfs"], fd, buffer)
    magic: int = unpack_from("q", buffer.raw)[0]
    return magic & 0xFFFFFFFF


def ioprio_set(klass: int, level: int) -> None:
    """ioprio_set(2) for this thread."""
    call("ioprio_set", OLD["ioprio_set"], 1, 0, klass << 13 | level)


def sched_setattr(attributes: bytes) -> None:
    """sched_setattr(2) for this thread."""
    call("sched_setattr", OLD["sched_setattr"], 0, attributes, 0)


def set_mempolicy(mode: int, nodemask: bytes, bits: int) -> None:
    """set_mempolicy(2)."""
    call("set_mempolicy", OLD["set_mempolicy"], mode, nodemask or None, bits)


def personality(persona: int) -> None:
    """personality(2)."""
    call("personality", OLD["personality"], persona)


class Exec:
    """An execve whose arguments are laid out in advance: nothing is allocated once seccomp is in force."""

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
            syscall(OLD["execveat"], self.fd, self.path, self.argv, self.env, AT_EMPTY_PATH, 0)
        else:
            syscall(OLD["execve"], self.path, self.argv, self.env, 0, 0, 0)
        return ctypes.get_errno()


def execveat(fd: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """Execute the file that `fd` is open on; returns only by raising."""
    vector = Exec._vector
    call("execveat", OLD["execveat"], fd, b"", vector(argv), vector(env), AT_EMPTY_PATH)


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
    call("fchownat", 260 if X86 else 54, fd, b"", uid, gid, AT_EMPTY_PATH)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = os.fsencode(name)
    call("setdomainname", 171 if X86 else 162, data, len(data), path=name)


def default_signal(number: int) -> None:
    """Give a signal its default disposition, past the C library, which refuses that for the ones it keeps."""
    call("rt_sigaction", OLD["rt_sigaction"], number, bytes(32), None, 8)
