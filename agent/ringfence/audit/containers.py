# SPDX-License-Identifier: Apache-2.0
"""Findings about containers, from their posture: facts of the kernel, /proc and the bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ringfence.audit.model import CHECKS, Finding
from ringfence.containers.model import Posture, SensitiveMount

__all__ = ["Subject", "findings"]

_MOUNTS = {
    "runtime-socket": "runtime-socket", "host-root": "host-root", "device": "host-device",
    "host-dev": "host-device", "host-etc": "host-etc", "kubelet": "kubelet-dir", "host-proc": "host-proc",
    "proc-writable": "host-proc", "sysfs-writable": "sysfs-writable", "cgroup-writable": "cgroup-writable",
    "host-log": "host-log", "host-path": "host-path",
}  # fmt: skip
_NAMESPACES = {
    "pid": "host-pid", "net": "host-network", "ipc": "host-ipc", "uts": "host-uts",
    "mnt": "host-mount-namespace",
}  # fmt: skip
# Weights of capabilities that affect the host; the highest one counts.
_STRONG = {
    "CAP_SYS_MODULE": 90, "CAP_SYS_ADMIN": 80, "CAP_SYS_RAWIO": 80, "CAP_DAC_READ_SEARCH": 75, "CAP_BPF": 65,
    "CAP_SYS_PTRACE": 60, "CAP_SYS_BOOT": 50, "CAP_PERFMON": 45, "CAP_NET_ADMIN": 40,
}  # fmt: skip
_READ_ONLY = 20  # points deducted for a read-only mount
_SOCKET = "runtime-socket"  # a read-only mount does not protect a socket


class Subject(NamedTuple):
    """The facts of a container that an audit needs."""

    name: str
    identifier: str
    posture: Posture
    root: bool | None = None  # True if its first process runs as user 0


def findings(subject: Subject, *, mac: bool = False) -> Iterator[Finding]:
    """Yields all findings about one container. `mac`: AppArmor or SELinux is enabled on this node."""
    posture = subject.posture
    if posture.privileged:
        yield _found("privileged", subject, f"score {posture.score}: {', '.join(posture.reasons[:4])}")
    yield from _mounts(subject)
    for name in posture.shared_namespaces or ():
        # For a privileged container, the other findings are reported, too: they remain without the flag.
        if name in _NAMESPACES:
            yield _found(_NAMESPACES[name], subject, f"{name} namespace")
    if posture.seccomp == "disabled":
        yield _found("no-seccomp", subject, "Seccomp: 0")
    if posture.user_namespace is False:
        if strong := [name for name in posture.capabilities or () if name in _STRONG]:
            worst = max(_STRONG[name] for name in strong)
            yield _found("strong-capabilities", subject, ", ".join(strong), worst)
        if subject.root:
            yield _found("root-without-userns", subject, "uid 0 inside is uid 0 outside")
    if posture.no_new_privs is False:
        yield _found("no-new-privs-off", subject, "NoNewPrivs: 0")
    if mac and (posture.apparmor or "unconfined").split()[0] in ("unconfined", "kernel"):
        yield _found("unconfined", subject, posture.apparmor or "no label")


def _mounts(subject: Subject) -> Iterator[Finding]:
    """Yields one finding per kind of mount, for the mount with the highest score."""
    worst: dict[str, tuple[int, SensitiveMount, int]] = {}
    for mount in subject.posture.sensitive_mounts:
        check = _MOUNTS.get(mount.kind)
        if check is None or (mount.kind == "proc-writable" and subject.posture.user_namespace):
            continue  # the node's settings belong to the node's root
        less = 0 if mount.writable or mount.kind == _SOCKET else _READ_ONLY
        points = max(CHECKS[check].score - less, 10)
        best, first, count = worst.get(check, (-1, mount, 0))
        worst[check] = (max(best, points), mount if points > best else first, count + 1)
    for check, (points, mount, count) in worst.items():
        more = f", and {count - 1} more" if count > 1 else ""
        how = "writable" if mount.writable else "read-only"
        yield _found(check, subject, f"{mount.source} at {mount.target} ({how}){more}", points)


def _found(check: str, subject: Subject, detail: str, score: int = -1) -> Finding:
    return Finding(CHECKS[check], subject.name, detail, subject.identifier, score)
