# SPDX-License-Identifier: Apache-2.0
"""Every event that a rule can name, with its operands. Used by loader, schema, compiler and docs.

The dims are those that the probes fill in (probes/*.bpf.c, ringfence.bpf.syscalls); a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ringfence.abi import (
    DIM_OBJECT,
    DRIFT_BORROWED,
    DRIFT_CAPABILITIES,
    DRIFT_USER,
    TREE_SHIFT,
    EventKind,
    Relation,
)
from ringfence.policy import constants as c
from ringfence.policy.operand import EventWords, Kind, Operand
from ringfence.policy.shared_operands import (
    COMMON,
    FILE,
    LOW32,
    MOUNTS,
    NET,
    NO_YES,
    OPENED,
    REACHED,
    TREE,
    call,
    choice,
    flags,
    one,
    target,
    text,
    whose,
)

__all__ = ["EVENTS", "OF_THE_HOST", "describe", "event_words", "labels"]

_DRIFTS = {
    "user": DRIFT_USER,
    "capabilities": DRIFT_CAPABILITIES,
    "borrowed": DRIFT_BORROWED,
    **{word: bit for word, bit in c.NAMESPACE_FLAGS.items() if word != "CLONE_NEWTIME"},
}
_EXCHANGED = {"unknown": 0, "alike": 1, "directory-and-link": 2}
_ON_DISK = replace(FILE[0], dim=1, by_hook=True)  # of calls on a path: the hook has the object
_OF_CLONE3 = (
    "for clone3, read from the caller's memory at the start of the call: an alert may miss what another "
    "thread changes afterwards; a kill does not, as it also tests the flags that the kernel used"
)
_OF_PROCESS = 8  # RF_OF_PROCESS of probes/include/open.h
_MODES = {"read": 1, "attach": 2}
_VIA = {"call": 1, "open": 2, "lookup": 3}
_PROCESS = Operand(
    "process",
    Kind.CHOICE,
    2,
    "the owner of the process, of a file of /proc/PID",
    {relation.label: ((_OF_PROCESS | relation) << TREE_SHIFT,) for relation in Relation},
    mask=15 << TREE_SHIFT,
)
_ON_OPEN = "evaluated for every open of every container: test the filesystem first"


#: events that do not belong to a container
OF_THE_HOST = (EventKind.KERNEL_HELPER, EventKind.HOST_MAP)


def _event(kind: EventKind, meaning: str, *operands: Operand, hot: str = "") -> tuple[EventKind, EventWords]:
    return kind, EventWords(kind.label, meaning, (*operands, *COMMON), hot)


_K = EventKind
EVENTS: Mapping[EventKind, EventWords] = dict(
    (
        _event(
            _K.CONTAINER_START,
            "is the first workload process of a container",
            flags(0, "the namespaces that the container shares with the host", c.NAMESPACE_FLAGS, "shares"),
            choice("seccomp", 1, "its seccomp mode", {"disabled": 0, "strict": 1, "filter": 2}),
        ),
        _event(
            _K.PROCESS_EXEC,
            "executes a program",
            *FILE,
            *REACHED,
            hot="evaluated for every exec of every container",
        ),
        _event(
            _K.CGROUP_ATTACH, "leaves its container's cgroup", target(0, "the process that moves it", "by")
        ),
        _event(
            _K.FILE_OPEN,
            "opens a file",
            *FILE,
            *OPENED,
            _PROCESS,
            TREE,
            flags(1, "other open flags; moved: a rename or link; removed: an unlink (LSM)", c.OPEN_FLAGS),
            hot=_ON_OPEN,
        ),
        _event(_K.FILE_MAP, "maps a file for execution", *FILE, *OPENED, hot=_ON_OPEN),
        _event(_K.FILE_RECEIVE, "receives a descriptor from another process", *FILE, *OPENED),
        _event(
            _K.FILE_LINK,
            "creates a symbolic link, or moves one, or a directory, from one tree to another",
            *FILE,
            flags(1, "the form of the link's target", {"absolute": 1, "climbing": 2}, "leads"),
            choice("mount", 2, "the mount it is created on, as for file.open", MOUNTS, 7 << 16),
            replace(TREE, meaning="whose directory it gets its name in, as for file.open"),
        ),
        _event(
            _K.DEVICE_ACCESS,
            "creates or opens a device node",
            Operand("device", Kind.DEVICE, 2, "the type and number of the device"),
            flags(1, "the requested access", {"mknod": 1, "read": 2, "write": 4}, "access"),
        ),
        _event(
            _K.SYSCTL_ACCESS,
            "reads or writes a sysctl",
            choice("access", 0, "the requested access", {"read": 0, "write": 1}),
            text("sysctl", "the name of the sysctl, such as kernel/core_pattern", caution=""),
        ),
        _event(_K.NET_CONNECT, "connects to an address", *NET),
        _event(_K.NET_BIND, "binds a socket to an address", *NET),
        _event(_K.NET_SENDMSG, "sends a datagram to an address", *NET),
        _event(
            _K.UNIX_CONNECT,
            "connects to a unix socket",
            Operand(
                "socket",
                Kind.SOCKET,
                DIM_OBJECT,
                "the name of the socket",
                caution="the name that the process gave: a link or a relative path leads to the same socket "
                "(with BPF-LSM: the name to which the server bound it, which no link changes)",
            ),
            replace(target(0, "the owner of the server", "server"), by_hook=True, at_exit=True),
        ),
        _event(
            _K.SETSOCKOPT,
            "sets an option of a socket",
            choice("level", 0, "the protocol level of the option", c.SOCKET_LEVELS),
            Operand("option", Kind.CHOICE, 2, "the option, including its level", one(c.SOCKET_OPTIONS)),
            Operand(
                "number",
                Kind.NUMBER,
                1,
                "the option's number, at any level",
                mask=LOW32,
                largest=LOW32,
            ),
            hot="without BPF-LSM, the kernel makes an additional copy of every option value of every process",
        ),
        _event(
            _K.MODULE_REQUEST,
            "causes the kernel to request a module from modprobe",
            text("name", "the requested module or alias, such as net-pf-38 or fs-xfs", caution=""),
        ),
        _event(
            _K.KERNEL_HELPER,
            "of the host is run by the kernel as a usermode helper (modprobe, the core handler, ...)",
            *FILE,
            choice("known", 1, "whether it is one of the node's usermode helpers", NO_YES),
        ),
        _event(
            _K.TASK_DRIFT,
            "has credentials or namespaces that it could not have obtained by its own system calls",
            flags(0, "what changed", _DRIFTS, "changed"),
        ),
        _event(
            _K.HOST_MAP,
            "of the host maps a file of a container for execution",
            *FILE,
            *OPENED,
            hot="evaluated for every mapping for execution of a file on an overlay by a program of the host",
        ),
        _event(
            _K.SYS_CLONE,
            "starts a process or thread",
            flags(0, "the clone flags (what is new or shared)", c.CLONE_FLAGS, caution=_OF_CLONE3),
            hot="evaluated for every start of a process or thread",
        ),
        _event(
            _K.SYS_UNSHARE,
            "leaves a namespace for a new one",
            flags(0, "the types of namespaces", c.CLONE_FLAGS),
        ),
        _event(
            _K.SYS_SETNS,
            "enters a namespace",
            flags(0, "the types of namespaces", c.NAMESPACE_FLAGS, "nstype"),
            target(1, "the owner of the namespace"),
        ),
        _event(
            _K.SYS_MOUNT,
            "mounts a filesystem",
            flags(0, "the mount flags", c.MOUNT_FLAGS),
            text("fstype", "the requested filesystem type (empty for bind mounts and remounts)"),
        ),
        _event(_K.SYS_UMOUNT, "unmounts a filesystem", flags(0, "the umount flags", c.UMOUNT_FLAGS)),
        _event(_K.SYS_PIVOT_ROOT, "changes the root mount"),
        _event(
            _K.SYS_CHROOT,
            "changes its root directory",
            choice("chrooted", 0, "whether its root already differs from that of its mounts", NO_YES),
            choice("target", 1, "the owner of the new root", {"unknown": 0, "other": 1, "host": 2}),
            text("path", "the new root, as passed"),
        ),
        _event(_K.SYS_FSOPEN, "opens a filesystem context", text("fstype", "the requested filesystem type")),
        _event(
            _K.SYS_FSCONFIG,
            "configures a filesystem context",
            choice("cmd", 0, "the command", c.FSCONFIG_COMMANDS),
            text("key", "the parameter"),
        ),
        _event(_K.SYS_FSMOUNT, "creates a mount of a new filesystem"),
        _event(_K.SYS_FSPICK, "opens a mounted filesystem for reconfiguration"),
        _event(_K.SYS_OPEN_TREE, "opens or clones a mount", flags(0, "the flags", c.OPEN_TREE_FLAGS)),
        _event(_K.SYS_MOVE_MOUNT, "attaches or moves a mount"),
        _event(_K.SYS_MOUNT_SETATTR, "changes the attributes of a mount (mount_setattr, open_tree_attr)"),
        _event(
            _K.SYS_PTRACE,
            "traces a process",
            choice("request", 0, "the request", c.PTRACE_REQUESTS),
            target(1, "the owner of the process"),
        ),
        _event(
            _K.SYS_PROCESS_VM,
            "reads or writes the memory of a process",
            call("process_vm_readv process_vm_writev process_madvise", 0),
            target(1, "the owner of the process"),
        ),
        _event(
            _K.SYS_PIDFD_GETFD,
            "copies a descriptor from another process",
            target(0, "the owner of the process"),
        ),
        _event(
            _K.PROCESS_LOOK,
            "looks into a process in another way than by ptrace, process_vm, pidfd_getfd or setns",
            replace(
                choice("mode", 0, "what the kernel checks for: reading, or control", _MODES), by_hook=True
            ),
            target(1, "the owner of the process"),
            choice("via", 2, "by a call (kcmp), by opening a file of /proc/PID, or by a link there", _VIA),
        ),
        _event(
            _K.SYS_SIGNAL,
            "sends a signal to another process",
            choice("signal", 0, "the signal; 0 only asks whether the process exists", c.SIGNALS),
            target(1, "the owner of the process"),
        ),
        _event(
            _K.UEVENT_SEND,
            "sends a message about devices, as the kernel does (NETLINK_KOBJECT_UEVENT)",
            choice("network", 0, "whose network namespace the socket is in", {"own": 1, "host": 2}),
        ),
        _event(_K.SYS_BPF, "calls bpf()", choice("cmd", 0, "the command", c.BPF_COMMANDS)),
        _event(
            _K.SYS_PERF_EVENT_OPEN,
            "opens a performance event",
            target(0, "the owner of the measured process"),
        ),
        _event(_K.SYS_MODULE_LOAD, "loads a kernel module", call("init_module finit_module", 0)),
        _event(_K.SYS_MODULE_UNLOAD, "removes a kernel module"),
        _event(_K.SYS_KEXEC, "loads another kernel"),
        _event(_K.SYS_CAPSET, "changes its capabilities"),
        _event(
            _K.SYS_SETUID,
            "changes its user",
            Operand("uid", Kind.NUMBER, 0, "the (first) requested user id", mask=LOW32, largest=LOW32),
            call("setuid setreuid setresuid setfsuid", 1),
        ),
        _event(
            _K.SYS_SETGID,
            "changes its groups",
            Operand("gid", Kind.NUMBER, 0, "the (first) requested group id", mask=LOW32, largest=LOW32),
            call("setgid setregid setresgid setfsgid setgroups", 1),
        ),
        _event(_K.SYS_OPEN_BY_HANDLE_AT, "opens a file by handle", flags(0, "the open flags", c.OPEN_FLAGS)),
        _event(
            _K.SYS_MEMFD_CREATE,
            "creates a file in memory",
            flags(0, "the flags", c.MEMFD_FLAGS),
            call("memfd_create memfd_secret", 1),
        ),
        _event(
            _K.SYS_USERFAULTFD,
            "handles page faults in user space",
            flags(0, "the flags", {"UFFD_USER_MODE_ONLY": 1}),
        ),
        _event(_K.SYS_IO_URING_SETUP, "creates an io_uring"),
        _event(
            _K.SYS_KEYCTL,
            "uses the kernel's keyrings",
            choice("operation", 0, "the operation of keyctl", c.KEYCTL_OPERATIONS),
            call("keyctl add_key request_key", 1),
            choice("callout", 2, "whether the call passes words to /sbin/request-key of the host", NO_YES),
        ),
        _event(
            _K.SYS_MKNOD,
            "creates a filesystem node",
            Operand("type", Kind.CHOICE, 0, "the file type", one(c.FILE_TYPES), mask=0o170000),
        ),
        _event(
            _K.SYS_SOCKET,
            "creates a socket",
            choice("family", 0, "the address family", c.SOCKET_FAMILIES),
            choice("type", 1, "the socket type", c.SOCKET_TYPES, mask=0xF),
            choice("protocol", 2, "the protocol of the family", c.PROTOCOLS),
            hot="evaluated for every socket() of every container",
        ),
        _event(
            _K.SYS_IOPL,
            "requests access to I/O ports",
            call("iopl ioperm", 0),
            Operand("level", Kind.NUMBER, 1, "the level; 0 drops the access", mask=LOW32, largest=LOW32),
        ),
        _event(
            _K.SYS_SYSLOG,
            "reads or changes the kernel's log",
            choice("type", 0, "the action", c.SYSLOG_TYPES),
        ),
        _event(_K.SYS_REBOOT, "reboots or halts", choice("cmd", 0, "the command", c.REBOOT_COMMANDS)),
        _event(_K.SYS_SWAP, "changes swap space", call("swapon swapoff", 0)),
        _event(
            _K.SYS_SETTIME,
            "sets a clock, or asks for its state",
            call("settimeofday clock_settime adjtimex clock_adjtime", 0),
            choice("changes", 1, "whether it changes the clock; adjtimex can also only read", NO_YES),
        ),
        _event(
            _K.SYS_CHMOD,
            "changes the mode of a file",
            flags(0, "the mode bits", c.MODE_BITS, "mode"),
            _ON_DISK,
            whose(2),
        ),
        _event(
            _K.SYS_IOCTL,
            "calls ioctl()",
            Operand("request", Kind.CHOICE, 0, "the request", c.IOCTL_REQUESTS, mask=LOW32, largest=LOW32),
            whose(1, by_hook=False),
            hot="attached to every ioctl of the node, which slows terminals and databases",
        ),
        _event(
            _K.SYS_SPLICE,
            "splices data",
            call("splice vmsplice tee", 0),
            choice("source", 1, "the file it reads from", {"other": 0, "setuid-program": 1}),
            hot="attached to every splice of the node, which slows proxies and web servers",
        ),
        _event(_K.SYS_SYMLINK, "creates a symbolic link", text("target", "the link's target, as passed")),
        _event(
            _K.SYS_RENAME,
            "renames a file with flags",
            flags(0, "the flags", c.RENAME_FLAGS),
            replace(choice("exchanged", 1, "the kinds of the exchanged files", _EXCHANGED), by_hook=True),
            text("path", "the new name, as passed"),
        ),
        _event(
            _K.SYS_SETXATTR,
            "sets an extended attribute of a file (BPF-LSM: or removes it; or changes inode flags or times)",
            replace(FILE[0], by_hook=True),
            whose(1),
            text("name", "the attribute's name, such as security.capability; empty: inode flags or times"),
        ),
        _event(
            _K.SYS_PERSONALITY, "changes its execution domain", flags(0, "the flags", c.PERSONALITY_FLAGS)
        ),
        _event(
            _K.SYS_SECCOMP,
            "changes its seccomp filters",
            choice("operation", 0, "the operation", c.SECCOMP_OPERATIONS),
        ),
        _event(_K.SYS_ACCT, "turns process accounting on or off"),
        _event(
            _K.SYS_QUOTACTL,
            "reads or changes disk quotas",
            choice("command", 0, "the command", c.QUOTA_COMMANDS, mask=0xFFFFFF00),
        ),
        _event(
            _K.SYS_FANOTIFY_INIT,
            "creates a fanotify group",
            flags(0, "the flags", c.FANOTIFY_FLAGS),
        ),
        _event(_K.SYS_SETDOMAIN, "sets the host or domain name", call("sethostname setdomainname", 0)),
    )
)


def labels() -> list[str]:
    """Returns the values of `event:`, in the order of the ABI."""
    return [words.label for words in EVENTS.values()]


def event_words(label: str) -> tuple[EventKind, EventWords] | None:
    """Returns the event of that name, or None if rules cannot name it."""
    return next(((kind, words) for kind, words in EVENTS.items() if words.label == label), None)


def describe(kind: EventKind, operands: Sequence[int]) -> dict[str, str]:
    """Returns the numbers of an event in words: {'flags': 'CLONE_NEWUSER|CLONE_NEWNS'}."""
    words = EVENTS.get(kind)
    if words is None:
        return {}
    numeric = (Kind.CHOICE, Kind.FLAGS, Kind.NUMBER)
    return {
        o.name: o.word_of(operands[o.dim])
        for o in words.operands
        if o.kind in numeric and o.dim < len(operands)
    }
