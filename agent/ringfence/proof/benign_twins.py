# SPDX-License-Identifier: Apache-2.0
"""The benign twins of rules as events in the vocabulary of policies.

With these, `ringfence policy check` finds out without a kernel whether a modified rule would match
its own twin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ringfence.abi import EventKind
from ringfence.policy.samples import Sample, device_sample, file_sample, sample
from ringfence.proof.cases import CASES, Case

__all__ = ["event_of", "twins"]

_K = EventKind
#: (path prefix in the target container, filesystem, prefix within the filesystem); see target_container
_PLACES = (
    ("/proc/sys/", "proc", "/sys/"),
    ("/proc/", "proc", "/"),
    ("/sys/fs/cgroup/", "cgroup", "/"),
    ("/sys/", "sysfs", "/"),
    ("/run/host-passwd", "disk", "/etc/passwd"),
    ("/run/shared/", "disk", "/shared/"),
    ("/run/tracefs/", "tracefs", "/"),
    ("/run/binfmt_misc/", "binfmt_misc", "/"),
    ("/run/cgroup-beside/", "cgroup1", "/"),
    ("{own}", "cgroup2", "/cgroup.procs"),
    ("/dev/pts/", "devpts", "/"),
    ("/run/lxcfs/", "fuse", "/"),
    ("/run/console", "proc", "/sysrq-trigger"),
    ("{release}", "cgroup1", "/release_agent"),
    ("/tmp/", "tmpfs", "/"),
    ("/", "overlay", "/"),
    ("", "overlay", "/"),
)
_TERMINAL_SIZE = 0x5413  # TIOCGWINSZ

Words = Sequence[str]


def _open(words: Words) -> Sample:
    path, mode = (*words, "r")[:2]
    begin, filesystem, inside = next(place for place in _PLACES if path.startswith(place[0]))
    text = inside + path.removeprefix(begin) if path != begin else inside
    return file_sample(
        _K.FILE_OPEN, filesystem, text.encode(), f"open {' '.join(words)}", vital=False, type="file",
        access="write" if mode == "w" else "read",
    )  # fmt: skip


def _number(word: str) -> int:
    return int(word, 0)


def _connect(words: Words) -> Sample:
    address = bytes((192, 0, 2, 1)) if words[0].startswith("{") else bytes(map(int, words[0].split(".")))
    return sample(
        _K.NET_CONNECT, f"connect {' '.join(words)}", port=int(words[1]), family="AF_INET", protocol="tcp",
        address=address,
    )  # fmt: skip


def _socket(words: Words) -> Sample:
    family, kind, protocol = (*map(_number, words), 0)[:3]
    what = f"socket {' '.join(words)}"
    return sample(_K.SYS_SOCKET, what, family=family, type=kind, protocol=protocol)


def _unix(words: Words) -> Sample:
    name = words[0].encode()
    text = b"\0" + name[1:] if name.startswith(b"@") else name
    return sample(_K.UNIX_CONNECT, f"unix {' '.join(words)}", text=text, server="container")


def _chmod(words: Words) -> Sample:
    place = words[1] if len(words) > 1 else "/tmp/mode"
    filesystem = "disk" if place.startswith("/run/shared") else "tmpfs"
    mode = int(words[0], 8)
    return sample(_K.SYS_CHMOD, f"chmod {' '.join(words)}", mode=mode, filesystem=filesystem)


def _link(words: Words) -> Sample:
    target, where = (*words, "/tmp/link")[:2]
    filesystem, path = ("disk", where) if where.startswith("/var/log") else ("tmpfs", where)
    leads = 1 if target.startswith("/") else 2 if ".." in target.split("/") else 0
    tree: dict[str, Any] = {"tree": "logs"} if where.startswith("/var/log") else {}
    what = f"symlink {' '.join(words)}"
    return file_sample(_K.FILE_LINK, filesystem, path.encode(), what, vital=False, leads=leads, **tree)


def _kill(words: Words) -> Sample:
    target = "container" if words[0] == "0" else "host"
    return sample(_K.SYS_SIGNAL, f"kill {' '.join(words)}", signal=_number(words[1]), target=target)


def _xattr(words: Words) -> Sample:
    name, place = words
    filesystem = "disk" if place.startswith("/run/shared") else "tmpfs"
    return sample(_K.SYS_SETXATTR, f"setxattr {name}", filesystem=filesystem, text=name.encode())


def _flags(kind: EventKind, name: str = "flags") -> Callable[[Words], Sample]:
    def make(words: Words) -> Sample:
        numbers: dict[str, Any] = {name: _number(words[-1])}
        return sample(kind, f"{kind.label} {' '.join(words)}", **numbers)

    return make


def _plain(kind: EventKind, **operands: str | int) -> Callable[[Words], Sample]:
    def make(words: Words) -> Sample:
        return sample(kind, " ".join((kind.label, *words)), **operands)  # type: ignore[arg-type]

    return make


def _sysctl(access: str) -> Callable[[Words], Sample]:
    def make(words: Words) -> Sample:
        name = words[0].removeprefix("/proc/sys/").replace("/run/", "kernel/")
        return sample(_K.SYSCTL_ACCESS, f"{access} {name}", access=access, text=name.encode())

    return make


#: command -> its event, for the twins that are events which rules can match
_EVENTS: Mapping[str, Callable[[Words], Sample]] = {
    "open": _open,
    "read": _sysctl("read"),
    "rewrite": _sysctl("write"),
    "mknod": lambda words: device_sample(
        f"mknod {' '.join(words)}", int(words[1]), int(words[2]), "mknod", vital=False
    ),
    "chmod": _chmod,
    "symlink": _link,
    "exchange": lambda words: sample(
        _K.SYS_RENAME, f"renameat2 {' '.join(words)}", flags=_number(words[0]), exchanged="unknown"
    ),
    "perf": _plain(_K.SYS_PERF_EVENT_OPEN, target="self"),
    "ioperm": _plain(_K.SYS_IOPL, call="ioperm", level=0),
    "iopl": _plain(_K.SYS_IOPL, call="iopl", level=0),
    "syslog": _flags(_K.SYS_SYSLOG, "type"),
    "reboot": _flags(_K.SYS_REBOOT, "cmd"),
    "userfaultfd": _flags(_K.SYS_USERFAULTFD),
    "keyctl": lambda words: sample(
        _K.SYS_KEYCTL, f"keyctl {' '.join(words)}", call="keyctl", operation=_number(words[0])
    ),
    "adjtimex": _plain(_K.SYS_SETTIME, call="adjtimex", changes="no"),
    "quota": lambda words: sample(
        _K.SYS_QUOTACTL, f"quotactl {' '.join(words)}", command=_number(words[0]) << 8
    ),
    "fanotify": _flags(_K.SYS_FANOTIFY_INIT),
    "fsioctl": _flags(_K.SYS_IOCTL, "request"),
    "setxattr": _xattr,
    "request_key": _plain(_K.SYS_KEYCTL, call="request_key", callout="no"),
    "private": _plain(_K.SYS_MOUNT, flags="MS_PRIVATE"),
    "open_tree": _flags(_K.SYS_OPEN_TREE),
    "chroot": _plain(_K.SYS_CHROOT, chrooted="no", target="other"),
    "unshare": _flags(_K.SYS_UNSHARE),
    "clone": _flags(_K.SYS_CLONE),
    "clone3": _flags(_K.SYS_CLONE),
    "setns": _plain(_K.SYS_SETNS, nstype="CLONE_NEWUTS", target="self"),
    "setns_pidfd": _plain(_K.SYS_SETNS, nstype="CLONE_NEWUTS", target="self"),
    "connect": _connect,
    "socket": _socket,
    "socketcall": _socket,
    "unix": _unix,
    "ptrace": _plain(_K.SYS_PTRACE, request="PTRACE_SEIZE", target="container"),
    "process_vm": _plain(_K.SYS_PROCESS_VM, call="process_vm_readv", target="self"),
    "getfd": _plain(_K.SYS_PIDFD_GETFD, target="self"),
    "kcmp": _plain(_K.PROCESS_LOOK, mode="read", target="self", via="call"),
    "kill": _kill,
    "uevent": _plain(_K.UEVENT_SEND, network="own"),
    "tty": _plain(_K.SYS_IOCTL, request=_TERMINAL_SIZE),
    "run": lambda words: file_sample(
        _K.PROCESS_EXEC, "overlay", words[0].encode(), f"run {words[0]}", vital=False, mount="own"
    ),
    "splice": _plain(_K.SYS_SPLICE, call="splice", source="other"),
    "host-module": _plain(_K.KERNEL_HELPER, known="yes", filesystem="disk"),
    "host-map": _plain(_K.FILE_MAP, filesystem="disk", access="read", type="file"),
}


def event_of(case: Case) -> Sample | None:
    """Returns a case's twin as an event; None: it is no event that a rule can match."""
    command, *words = case.twin.split() or [""]
    make = _EVENTS.get(command)
    return make(words) if make else None


def twins() -> dict[str, list[Sample]]:
    """Returns rule -> the events of its twins."""
    found: dict[str, list[Sample]] = {}
    for case in CASES:
        one = event_of(case)
        # A twin in another kind of container is benign because of that container, not of the event.
        if one is not None and case.twin_kind is None:
            found.setdefault(case.rule, []).append(one)
    return found
