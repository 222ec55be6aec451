# SPDX-License-Identifier: Apache-2.0
"""System calls that Python lacks, by their kernel names: the one block of ctypes of agent and runtime.

Every function raises OSError with errno, the call's name and the path that it concerned. No module above
sees ctypes, errno or a struct layout. ctypes is loaded by the first call, because most commands make none.

Calls keep the interpreter's lock, so a raw clone3 leaves the child with the lock held by its only thread, as
fork does. `blocking` calls release it: for other threads while a path leads to a slow filesystem.
"""

from __future__ import annotations

import os
from _struct import Struct, pack, unpack_from

from ringfence_linux.numbers import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Sequence
    from typing import Any

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000

CLONE_NEWTIME = 0x00000080
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2

PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
DEVPTS_SUPER_MAGIC = 0x1CD1

PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_NAME = 15

_PERF_FLAG_FD_CLOEXEC = 8
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_CAPABILITY_VERSION_3 = 0x20080522
_OPEN_HOW = Struct("QQQ")
_MOUNT_ATTR = Struct("QQQQ")
_CLONE_ARGS = Struct("11Q")


class _Library:
    """The C library's `syscall`, with and without the interpreter's lock; the first call fills it in."""

    syscall: Callable[..., int] | None = None
    blocking: Callable[..., int] | None = None
    errno: Callable[[], int]


_library = _Library()


def load() -> Callable[..., int]:
    """Load ctypes and return the C library's `syscall`.

    The first call does it. A process that will lose access to the interpreter's files calls it before.
    """
    import ctypes

    _library.errno = ctypes.get_errno
    _library.syscall = _typed(ctypes.PyDLL(None, use_errno=True))
    return _library.syscall


def _load_blocking() -> Callable[..., int]:
    import ctypes

    _library.errno = ctypes.get_errno
    _library.blocking = _typed(ctypes.CDLL(None, use_errno=True))
    return _library.blocking


def _typed(library: ctypes.CDLL) -> Callable[..., int]:
    from ctypes import c_long, c_void_p

    syscall = library["syscall"]
    syscall.restype = c_long
    syscall.argtypes = (c_long, *([c_void_p] * 6))
    return syscall


def call(name: str, *args: object, path: str | bytes = "", label: str = "", blocking: bool = False) -> int:
    """Make the system call `name`; OSError with its label (or name), the reason and the path."""
    syscall = _library.blocking or _load_blocking() if blocking else _library.syscall or load()
    result = syscall(number(name), *args, *((0,) * (6 - len(args))))
    if result < 0:
        code = _library.errno()
        raise OSError(code, f"{label or name}: {os.strerror(code)}", os.fsdecode(path) or None)
    return result


def clone3(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork with `flags`; returns (0, -1) in the child and (pid, pidfd) in the parent."""
    import ctypes

    pidfd = ctypes.c_int(-1)
    into = CLONE_INTO_CGROUP if cgroup_fd >= 0 else 0
    signal = 0 if flags & CLONE_PARENT else 17  # SIGCHLD
    args = _CLONE_ARGS.pack(
        flags | CLONE_PIDFD | into, ctypes.addressof(pidfd), 0, 0, signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0)
    )
    pid = call("clone3", args, len(args))
    return (pid, pidfd.value) if pid else (0, -1)


def openat2(dirfd: int, path: str | bytes, flags: int, *, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dirfd` within the limits of `resolve` (openat2(2)). A race (EAGAIN) is retried."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(64):
        try:
            return call("openat2", dirfd, _as_bytes(path), how, len(how), path=path)
        except BlockingIOError:
            if attempt == 63:
                raise
    raise AssertionError("unreachable")


def open_in_root(root: int, path: str) -> int:
    """Open `path` (O_PATH) as a process sees it that has `root` as its root: absolute links start there.

    `..` does not lead out of it. The lock is released, as the path may lead to a slow filesystem.
    """
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    return call("openat2", root, _as_bytes(path), how, len(how), path=path, blocking=True)


def open_tree(dirfd: int, path: str | bytes, flags: int) -> int:
    """open_tree(2)."""
    return call("open_tree", dirfd, _as_bytes(path), flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(from_fd: int, to_fd: int, *, path: str | bytes = "") -> None:
    """Attach the mount `from_fd` exactly on the object that `to_fd` is open on (no path is walked)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    call("move_mount", from_fd, b"", to_fd, b"", flags, path=path)


def move_mount_to(from_fd: int, target: str) -> None:
    """Attach the mount `from_fd` at a path of this mount namespace."""
    call("move_mount", from_fd, b"", AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH, path=target)


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
    """mount_setattr(2) on what `fd` is open on."""
    attr = mount_attributes(attr_set, attr_clr, propagation, userns)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    call("mount_setattr", fd, b"", flags, attr, len(attr), path=path)


def fsopen(fstype: str) -> int:
    """fsopen(2)."""
    return call("fsopen", fstype.encode(), _FSOPEN_CLOEXEC, path=fstype)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set a parameter that has a value."""
    data = (key.encode(), os.fsencode(value), 0)
    call("fsconfig", fd, _FSCONFIG_SET_STRING, *data, path=value, label=f"fsconfig {key}")


def fsconfig_flag(fd: int, key: str) -> None:
    """Set a parameter that has no value."""
    call("fsconfig", fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0, path=key, label=f"fsconfig {key}")


def fsconfig_create(fd: int) -> None:
    """Create the superblock."""
    call("fsconfig", fd, _FSCONFIG_CMD_CREATE, None, None, 0, label="fsconfig create")


def fsmount(fd: int, attributes: int) -> int:
    """A detached mount of the filesystem context `fd`."""
    return call("fsmount", fd, _FSMOUNT_CLOEXEC, attributes)


def mount_detached(fstype: str, **parameters: str) -> int:
    """A new mount of a filesystem, in no mount namespace: it lives as long as the descriptor.

    `parameters` as of mount -o; an empty text is a flag. ENOSYS before Linux 5.2, which has no fsopen(2).
    """
    context = fsopen(fstype)
    try:
        for key, value in parameters.items():
            if value:
                fsconfig_string(context, key, value)
            else:
                fsconfig_flag(context, key)
        fsconfig_create(context)
        return fsmount(context, 0)
    finally:
        os.close(context)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None) -> None:
    """mount(2), for what the newer calls cannot do."""
    call(
        "mount",
        source and os.fsencode(source),
        os.fsencode(target),
        fstype and fstype.encode(),
        flags,
        data and os.fsencode(data),
        path=target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    call("umount2", os.fsencode(target), flags, path=target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    call("pivot_root", new.encode(), old.encode())


def setns(fd: int, flags: int, *, path: str = "") -> None:
    """setns(2)."""
    call("setns", fd, flags, path=path)


def unshare(flags: int) -> None:
    """unshare(2)."""
    call("unshare", flags)


def prctl(option: int, *args: int) -> int:
    """prctl(2)."""
    return call("prctl", option, *args, *((0,) * (4 - len(args))))


def pidfd_open(pid: int) -> int:
    """pidfd_open(2)."""
    return call("pidfd_open", pid, 0)


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """pidfd_send_signal(2)."""
    call("pidfd_send_signal", pidfd, signal, None, 0)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2)."""
    return call("pidfd_getfd", pidfd, fd, 0)


def close_range(first: int, last: int = 0xFFFFFFFF, *, cloexec: bool = True) -> None:
    """close_range(2)."""
    call("close_range", first, last, 4 if cloexec else 0)


def fs_magic(fd: int) -> int:
    """The magic number of the filesystem that `fd` is on (statfs(2))."""
    import ctypes

    buffer = ctypes.create_string_buffer(256)
    call("fstatfs", fd, buffer)
    magic: int = unpack_from("q", buffer.raw)[0]
    return magic & 0xFFFFFFFF


def ioprio_set(klass: int, level: int) -> None:
    """ioprio_set(2) for this thread."""
    call("ioprio_set", 1, 0, klass << 13 | level)


def sched_setattr(attributes: bytes) -> None:
    """sched_setattr(2) for this thread."""
    call("sched_setattr", 0, attributes, 0)


def set_mempolicy(mode: int, nodemask: bytes, bits: int) -> None:
    """set_mempolicy(2)."""
    call("set_mempolicy", mode, nodemask or None, bits)


def personality(persona: int) -> None:
    """personality(2)."""
    call("personality", persona)


class Exec:
    """An execve with arguments laid out in advance: nothing is allocated once seccomp is in force."""

    def __init__(self, path: str | int, argv: Sequence[str], env: Sequence[str]) -> None:
        import ctypes

        self._syscall, self._errno = _library.syscall or load(), ctypes.get_errno
        self._call = number("execveat" if isinstance(path, int) else "execve")
        self.fd = path if isinstance(path, int) else -1
        self.path = ctypes.create_string_buffer(b"" if isinstance(path, int) else os.fsencode(path))
        self.argv = _vector(argv)
        self.env = _vector(env)

    def __call__(self) -> int:
        """Run it; returns only on failure, with errno."""
        if self.fd >= 0:
            self._syscall(self._call, self.fd, self.path, self.argv, self.env, AT_EMPTY_PATH, 0)
        else:
            self._syscall(self._call, self.path, self.argv, self.env, 0, 0, 0)
        return self._errno()


def _vector(items: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    import ctypes

    return (ctypes.c_char_p * (len(items) + 1))(*[os.fsencode(item) for item in items], None)


def execveat(fd: int, argv: Sequence[str], env: Sequence[str]) -> None:
    """Execute the file that `fd` is open on; returns only by raising."""
    call("execveat", fd, b"", _vector(argv), _vector(env), AT_EMPTY_PATH)


def fchownat_empty(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what an O_PATH descriptor is open on."""
    call("fchownat", fd, b"", uid, gid, AT_EMPTY_PATH)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = os.fsencode(name)
    call("setdomainname", data, len(data), path=name)


def default_signal(number: int) -> None:
    """Give a signal its default disposition, past the C library, which refuses that for those it reserves."""
    call("rt_sigaction", number, bytes(32), None, 8)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set this thread's capability sets, given as bit masks (capset(2), version 3)."""
    sets = (effective, permitted, inheritable)
    data = pack("6I", *(mask & 0xFFFFFFFF for mask in sets), *(mask >> 32 for mask in sets))
    call("capset", pack("Ii", _CAPABILITY_VERSION_3, 0), data)


def capget() -> tuple[int, int, int]:
    """This thread's (effective, permitted, inheritable) capability masks."""
    import ctypes

    buffer = ctypes.create_string_buffer(24)
    call("capget", pack("Ii", _CAPABILITY_VERSION_3, 0), buffer)
    words = unpack_from("6I", buffer.raw)
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def seccomp_filter(program: bytes, flags: int) -> int:
    """Install a classic BPF filter of packed sock_filter; returns the listener if `flags` ask for one."""
    import ctypes

    instructions = ctypes.create_string_buffer(program, len(program))
    fprog = pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    return call("seccomp", 1, flags, fprog)


def seccomp_knows(flags: int) -> bool:
    """Returns True if this kernel knows these flags: it checks them before it reads the filter."""
    try:
        call("seccomp", 1, flags, None)
    except OSError as error:
        return error.errno == 14  # EFAULT
    return True


def bpf(
    command: int, attributes: bytes | int, size: int = 0, *, path: str = "", blocking: bool = False
) -> int:
    """bpf(2); `attributes` are bytes, or the address of `size` bytes that the kernel writes to."""
    length = size if isinstance(attributes, int) else len(attributes)
    return call("bpf", command, attributes, length, path=path, blocking=blocking)


def keyctl_join_session(name: str) -> int:
    """Join a new session keyring of this name."""
    return call("keyctl", 1, name.encode())


def keyctl_describe_perm(key: int) -> int:
    """The permission mask of a key (KEYCTL_DESCRIBE: `type;uid;gid;perm;name`)."""
    import ctypes

    buffer = ctypes.create_string_buffer(512)
    call("keyctl", 6, key, buffer, 512)
    return int(buffer.value.split(b";")[3], 16)


def keyctl_setperm(key: int, permissions: int) -> None:
    """Set the permission mask of a key."""
    call("keyctl", 5, key, permissions)


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 without Landlock."""
    try:
        return call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def landlock_create_ruleset(attributes: bytes) -> int:
    """landlock_create_ruleset(2)."""
    return call("landlock_create_ruleset", attributes, len(attributes), 0)


def landlock_add_rule(ruleset: int, kind: int, rule: bytes) -> None:
    """landlock_add_rule(2)."""
    call("landlock_add_rule", ruleset, kind, rule, 0)


def landlock_restrict_self(ruleset: int) -> None:
    """landlock_restrict_self(2)."""
    call("landlock_restrict_self", ruleset, 0)


def perf_event_open(attributes: bytes, *, pid: int, cpu: int, subject: object) -> int:
    """perf_event_open(2) with a struct perf_event_attr; `subject` is named in the error."""
    arguments = (attributes, pid, cpu, -1, _PERF_FLAG_FD_CLOEXEC)
    return call("perf_event_open", *arguments, path=str(subject), blocking=True)


def load_library(name: str, signatures: dict[str, tuple[str, str]]) -> dict[str, object]:
    """Functions of a shared library by name.

    A signature is (result, arguments) in letters: i (int), I (uint32), Q (uint64), p (pointer), s (text),
    v (void).
    """
    import ctypes

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


def _as_bytes(path: str | bytes) -> bytes:
    return path if isinstance(path, bytes) else os.fsencode(path)
