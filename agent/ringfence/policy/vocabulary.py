# SPDX-License-Identifier: Apache-2.0
"""Every event that a rule can name, with its operands: behind loader, schema, compiler and docs.

The dims agree with what the probes fill in (probes/*.bpf.c, ringfence.bpf.syscalls); a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ringfence.abi import (
    DIM_EXE,
    DIM_FACTS,
    DIM_OBJECT,
    DRIFT_BORROWED,
    DRIFT_CAPABILITIES,
    DRIFT_USER,
    EventKind,
    Relation,
)
from ringfence.policy import constants as c
from ringfence.policy.operand import FULL, EventWords, Kind, Operand

__all__ = ["EVENTS", "TASK_WORDS", "describe", "event_words", "labels"]

_LOW32 = 0xFFFFFFFF
_AT_ENTRY = "read from the process's memory when the call begins: another thread can change it after that"
_BY_PATH = (
    "a path inside the container: who may write there can put another program in its place. An exception or "
    "a `not` holds only from the container's own root and on the mount of it (not on volumes), and on "
    "overlayfs only while the program is as the image has it"
)

TASK_WORDS: Mapping[str, int] = {
    "in-user-namespace": 1 << 0,
    "cap-sys-admin": 1 << 1,
    "all-capabilities": 1 << 2,
    "root": 1 << 3,
    "no-seccomp": 1 << 4,
    "no-new-privs": 1 << 5,
    "host-pid": 1 << 6,
    "host-network": 1 << 7,
    "host-ipc": 1 << 8,
    "host-uts": 1 << 9,
    "host-cgroup": 1 << 10,
    "runs-from-memory": 1 << 11,
    "program-not-in-image": 1 << 12,
    "32-bit-call": 1 << 13,
    "foreign-abi": 1 << 14,
}


_DRIFTS = {
    "user": DRIFT_USER,
    "capabilities": DRIFT_CAPABILITIES,
    "borrowed": DRIFT_BORROWED,
    **{word: bit for word, bit in c.NAMESPACE_FLAGS.items() if word != "CLONE_NEWTIME"},
}


def _one(words: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    return {word: (number,) for word, number in words.items()}


def _flags(
    dim: int, meaning: str, words: Mapping[str, int], name: str = "flags", caution: str = ""
) -> Operand:
    return Operand(name, Kind.FLAGS, dim, meaning, _one(words), largest=_LOW32, caution=caution)


def _choice(name: str, dim: int, meaning: str, words: Mapping[str, int], mask: int = FULL) -> Operand:
    return Operand(name, Kind.CHOICE, dim, meaning, _one(words), mask=mask, largest=_LOW32)


def _call(names: str, dim: int) -> Operand:
    words = {name: number for number, name in enumerate(names.split(), 1)}
    return Operand("call", Kind.CHOICE, dim, "which call of the family", _one(words))


def _target(dim: int, meaning: str, name: str = "target") -> Operand:
    words = {r.label: (int(r),) for r in Relation}
    return Operand(name, Kind.CHOICE, dim, meaning, words)


def _text(name: str, meaning: str, caution: str = _AT_ENTRY) -> Operand:
    return Operand(name, Kind.TEXT, DIM_OBJECT, meaning, caution=caution)


_COMMON = (
    Operand("task", Kind.FLAGS, DIM_FACTS, "what is true of the calling task", _one(TASK_WORDS), mask=0x7FFF),
    Operand("exe", Kind.PROGRAM, DIM_EXE, "the program that the task runs", caution=_BY_PATH),
)
_FILE = (
    Operand("filesystem", Kind.CHOICE, 0, "the kind of filesystem that the file lies on", c.FILESYSTEMS),
    Operand("name", Kind.NAME, 3, "the last component of its path"),
    Operand("path", Kind.OBJECT, DIM_OBJECT, "filesystem:path-inside-it"),
)
_MOUNTS = {"own": 0, "foreign": 1 << 16, "none": 2 << 16, "outside": 3 << 16, "internal": 4 << 16}
_REACHED = (
    Operand("type", Kind.CHOICE, 2, "what kind of file", _one(c.FILE_TYPES), mask=0o170000),
    Operand(
        "mount",
        Kind.CHOICE,
        2,
        "whose mount the file was reached by: of a mount namespace of the task's or its container's own, of "
        "another one (foreign), of none (detached, or not attached yet), its own but outside of that mount's "
        "root (by file handle), or the kernel's own (internal: pipes, memfds, sockets)",
        _one(_MOUNTS),
        mask=7 << 16,
    ),
)
_OPENED = (
    Operand("access", Kind.CHOICE, 1, "what it is opened for", {"read": (0, 2), "write": (1, 2)}, mask=3),
    *_REACHED,
)
_NET = (
    Operand("port", Kind.NUMBER, 0, "the port of the other side (bind: its own)", largest=65535),
    Operand("family", Kind.CHOICE, 1, "IPv4 or IPv6", {"AF_INET": (2,), "AF_INET6": (10,)}),
    Operand(
        "protocol",
        Kind.CHOICE,
        2,
        "transport",
        {"tcp": (6,), "udp": (17,), "icmp": (1,), "icmpv6": (58,)},
        largest=255,
    ),
    Operand("address", Kind.NETWORK, DIM_OBJECT, "an address or a range"),
)
_ON_OPEN = "asked on every open of every container: test the filesystem first"


def _event(kind: EventKind, meaning: str, *operands: Operand, hot: str = "") -> tuple[EventKind, EventWords]:
    return kind, EventWords(kind.label, meaning, (*operands, *_COMMON), hot)


_K = EventKind
EVENTS: Mapping[EventKind, EventWords] = dict(
    (
        _event(
            _K.CONTAINER_START,
            "begins the work of a container",
            _flags(0, "namespaces that the container shares with the host", c.NAMESPACE_FLAGS, "shares"),
            _choice("seccomp", 1, "its seccomp mode", {"disabled": 0, "strict": 1, "filter": 2}),
        ),
        _event(
            _K.PROCESS_EXEC,
            "executes a program",
            *_FILE,
            *_REACHED,
            hot="asked on every exec of every container",
        ),
        _event(_K.CGROUP_ATTACH, "leaves its container's cgroup", _target(0, "who moves it", "by")),
        _event(
            _K.FILE_OPEN,
            "opens a file",
            *_FILE,
            *_OPENED,
            _flags(
                1, "other open flags; moved: it is no open, but a rename or a link (BPF-LSM)", c.OPEN_FLAGS
            ),
            hot=_ON_OPEN,
        ),
        _event(_K.FILE_MAP, "maps a file for execution", *_FILE, *_OPENED, hot=_ON_OPEN),
        _event(_K.FILE_RECEIVE, "is handed a descriptor by another process", *_FILE, *_OPENED),
        _event(
            _K.DEVICE_ACCESS,
            "makes or opens a device node",
            Operand("device", Kind.DEVICE, 2, "type and number"),
            _flags(1, "what for", {"mknod": 1, "read": 2, "write": 4}, "access"),
        ),
        _event(
            _K.SYSCTL_ACCESS,
            "reads or writes a sysctl",
            _choice("access", 0, "what for", {"read": 0, "write": 1}),
            _text("sysctl", "its name, kernel/core_pattern", caution=""),
        ),
        _event(_K.NET_CONNECT, "connects to an address", *_NET),
        _event(_K.NET_BIND, "binds a socket to an address", *_NET),
        _event(_K.NET_SENDMSG, "sends a datagram to an address", *_NET),
        _event(
            _K.UNIX_CONNECT,
            "connects to a unix socket",
            Operand(
                "socket",
                Kind.SOCKET,
                DIM_OBJECT,
                "its name",
                caution="the name that the process gave: a link or a relative path leads to the same socket "
                "(with BPF-LSM: the name that the server bound it to, which no link changes)",
            ),
            _target(0, "whose server it is, of streams; needs BPF-LSM, else unknown", "server"),
        ),
        _event(
            _K.SETSOCKOPT,
            "sets an option of a socket",
            _choice("level", 0, "the protocol that the option is of", c.SOCKET_LEVELS),
            Operand("option", Kind.CHOICE, 2, "the option, its level included", _one(c.SOCKET_OPTIONS)),
            Operand(
                "number",
                Kind.NUMBER,
                1,
                "the option's number, at whatever level",
                mask=_LOW32,
                largest=_LOW32,
            ),
            hot="without BPF-LSM the kernel copies every option's value once more, of every process",
        ),
        _event(
            _K.MODULE_REQUEST,
            "makes the kernel ask modprobe for a module",
            _text("name", "what modprobe is asked for: a module or an alias, net-pf-38, fs-xfs", caution=""),
        ),
        _event(
            _K.KERNEL_HELPER,
            "of the host is run by the kernel (modprobe, the core handler, release_agent ...)",
            *_FILE,
            _choice("known", 1, "whether it is one of the node's helpers", {"no": 0, "yes": 1}),
        ),
        _event(
            _K.TASK_DRIFT,
            "has credentials or namespaces that no call of its could have given it",
            _flags(0, "what of it", _DRIFTS, "changed"),
        ),
        _event(
            _K.SYS_CLONE,
            "starts a process or thread",
            _flags(0, "what is new or shared", c.CLONE_FLAGS, caution=f"of clone3: {_AT_ENTRY}"),
            hot="asked on every start of a process or thread",
        ),
        _event(_K.SYS_UNSHARE, "leaves a namespace for a new one", _flags(0, "which", c.CLONE_FLAGS)),
        _event(
            _K.SYS_SETNS,
            "enters a namespace",
            _flags(0, "which kinds", c.NAMESPACE_FLAGS, "nstype"),
            _target(1, "whose namespace"),
        ),
        _event(
            _K.SYS_MOUNT,
            "mounts",
            _flags(0, "how", c.MOUNT_FLAGS),
            _text("fstype", "the filesystem asked for (empty for bind mounts and remounts)"),
        ),
        _event(_K.SYS_UMOUNT, "unmounts", _flags(0, "how", c.UMOUNT_FLAGS)),
        _event(_K.SYS_PIVOT_ROOT, "changes the root mount"),
        _event(_K.SYS_CHROOT, "changes its root directory", _text("path", "the new root, as written")),
        _event(_K.SYS_FSOPEN, "begins to make a filesystem", _text("fstype", "the filesystem asked for")),
        _event(
            _K.SYS_FSCONFIG,
            "configures a filesystem in the making",
            _choice("cmd", 0, "command", c.FSCONFIG_COMMANDS),
            _text("key", "the parameter"),
        ),
        _event(_K.SYS_FSMOUNT, "makes a mount of a new filesystem"),
        _event(_K.SYS_FSPICK, "takes up a mounted filesystem to change it"),
        _event(_K.SYS_OPEN_TREE, "takes or clones a mount", _flags(0, "how", c.OPEN_TREE_FLAGS)),
        _event(_K.SYS_MOVE_MOUNT, "attaches or moves a mount"),
        _event(_K.SYS_MOUNT_SETATTR, "changes the attributes of a mount"),
        _event(
            _K.SYS_PTRACE,
            "traces a process",
            _choice("request", 0, "request", c.PTRACE_REQUESTS),
            _target(1, "whose process"),
        ),
        _event(
            _K.SYS_PROCESS_VM,
            "reads or writes the memory of a process",
            _call("process_vm_readv process_vm_writev process_madvise", 0),
            _target(1, "whose process"),
        ),
        _event(_K.SYS_PIDFD_GETFD, "takes a descriptor out of another process", _target(0, "whose process")),
        _event(_K.SYS_BPF, "uses bpf()", _choice("cmd", 0, "command", c.BPF_COMMANDS)),
        _event(_K.SYS_PERF_EVENT_OPEN, "opens a performance event", _target(0, "whose process is measured")),
        _event(_K.SYS_MODULE_LOAD, "loads a kernel module", _call("init_module finit_module", 0)),
        _event(_K.SYS_MODULE_UNLOAD, "removes a kernel module"),
        _event(_K.SYS_KEXEC, "loads another kernel"),
        _event(_K.SYS_CAPSET, "changes its capabilities"),
        _event(
            _K.SYS_SETUID,
            "changes its user",
            Operand("uid", Kind.NUMBER, 0, "the (first) user id asked for", mask=_LOW32, largest=_LOW32),
            _call("setuid setreuid setresuid setfsuid", 1),
        ),
        _event(
            _K.SYS_SETGID,
            "changes its groups",
            Operand("gid", Kind.NUMBER, 0, "the (first) group id asked for", mask=_LOW32, largest=_LOW32),
            _call("setgid setregid setresgid setfsgid setgroups", 1),
        ),
        _event(_K.SYS_OPEN_BY_HANDLE_AT, "opens a file by handle", _flags(0, "open flags", c.OPEN_FLAGS)),
        _event(
            _K.SYS_MEMFD_CREATE,
            "makes a file in memory",
            _flags(0, "how", c.MEMFD_FLAGS),
            _call("memfd_create memfd_secret", 1),
        ),
        _event(
            _K.SYS_USERFAULTFD,
            "handles page faults in user space",
            _flags(0, "how", {"UFFD_USER_MODE_ONLY": 1}),
        ),
        _event(_K.SYS_IO_URING_SETUP, "makes an io_uring"),
        _event(
            _K.SYS_KEYCTL,
            "uses the kernel's keyrings",
            _choice("operation", 0, "of keyctl", c.KEYCTL_OPERATIONS),
            _call("keyctl add_key request_key", 1),
        ),
        _event(
            _K.SYS_MKNOD,
            "makes a node",
            Operand("type", Kind.CHOICE, 0, "what kind of file", _one(c.FILE_TYPES), mask=0o170000),
        ),
        _event(
            _K.SYS_SOCKET,
            "makes a socket",
            _choice("family", 0, "address family", c.SOCKET_FAMILIES),
            _choice("type", 1, "kind of socket", c.SOCKET_TYPES, mask=0xF),
            _choice("protocol", 2, "protocol of the family", c.PROTOCOLS),
            hot="asked on every socket() of every container",
        ),
        _event(_K.SYS_IOPL, "asks for I/O ports", _call("iopl ioperm", 0)),
        _event(
            _K.SYS_SYSLOG, "reads or changes the kernel's log", _choice("type", 0, "action", c.SYSLOG_TYPES)
        ),
        _event(_K.SYS_REBOOT, "reboots or halts", _choice("cmd", 0, "command", c.REBOOT_COMMANDS)),
        _event(_K.SYS_SWAP, "changes swap space", _call("swapon swapoff", 0)),
        _event(_K.SYS_SETTIME, "sets a clock", _call("settimeofday clock_settime adjtimex clock_adjtime", 0)),
        _event(_K.SYS_CHMOD, "changes the mode of a file", _flags(0, "mode bits", c.MODE_BITS, "mode")),
        _event(
            _K.SYS_IOCTL,
            "makes an ioctl",
            _choice("request", 0, "request", c.IOCTL_REQUESTS, mask=_LOW32),
            hot="attached to every ioctl of the node: terminals and databases pay",
        ),
        _event(
            _K.SYS_SPLICE,
            "splices",
            _call("splice vmsplice tee", 0),
            hot="attached to every splice of the node: proxies and web servers pay",
        ),
        _event(_K.SYS_SYMLINK, "makes a symbolic link", _text("target", "where it points, as written")),
        _event(
            _K.SYS_RENAME,
            "renames a file with flags",
            _flags(0, "how", c.RENAME_FLAGS),
            _text("path", "the new name, as written"),
        ),
        _event(
            _K.SYS_SETXATTR,
            "sets an extended attribute of a file",
            _text("name", "its name: security.capability"),
        ),
        _event(_K.SYS_PERSONALITY, "changes its execution domain", _flags(0, "flags", c.PERSONALITY_FLAGS)),
        _event(
            _K.SYS_SECCOMP,
            "changes its seccomp filters",
            _choice("operation", 0, "operation", c.SECCOMP_OPERATIONS),
        ),
        _event(_K.SYS_ACCT, "turns process accounting on or off"),
        _event(_K.SYS_QUOTACTL, "changes disk quotas"),
        _event(_K.SYS_SETDOMAIN, "sets the host or domain name", _call("sethostname setdomainname", 0)),
    )
)


def labels() -> list[str]:
    """What `event:` can be, in the order of the ABI."""
    return [words.label for words in EVENTS.values()]


def event_words(label: str) -> tuple[EventKind, EventWords] | None:
    """The event of that name, if rules can be about it."""
    return next(((kind, words) for kind, words in EVENTS.items() if words.label == label), None)


def describe(kind: EventKind, operands: Sequence[int]) -> dict[str, str]:
    """The numbers of one event as people read them: {'flags': 'CLONE_NEWUSER|CLONE_NEWNS'}."""
    words = EVENTS.get(kind)
    if words is None:
        return {}
    numeric = (Kind.CHOICE, Kind.FLAGS, Kind.NUMBER)
    return {
        o.name: o.word_of(operands[o.dim])
        for o in words.operands
        if o.kind in numeric and o.dim < len(operands)
    }
