# SPDX-License-Identifier: Apache-2.0
"""How strongly a container is confined: the score behind `privileged`, shown in alerts.

Pure functions of what was read elsewhere (the CONTAINER_START event, /proc, config.json).
"""

from __future__ import annotations

from dataclasses import replace

from ringfence.abi import Fact
from ringfence.containers.model import Posture, SensitiveMount
from ringfence.events import ContainerEvent
from ringfence_linux import capabilities, namespaces

__all__ = [
    "SECCOMP_MODES",
    "from_event",
    "merge",
    "scored",
]

SECCOMP_MODES = ("disabled", "strict", "filter")

# Capabilities by which a container acts on its host, and what each adds to the score.
_STRONG = {
    "CAP_SYS_ADMIN": 25, "CAP_SYS_MODULE": 25, "CAP_SYS_RAWIO": 20, "CAP_SYS_PTRACE": 10, "CAP_BPF": 10,
    "CAP_DAC_READ_SEARCH": 15, "CAP_SYS_BOOT": 10, "CAP_NET_ADMIN": 5, "CAP_PERFMON": 5, "CAP_MKNOD": 2,
}  # fmt: skip
_SHARED = {"pid": 15, "net": 8, "ipc": 5, "mnt": 25, "uts": 2, "cgroup": 3}
_MOUNTS = {
    "host-root": 40, "runtime-socket": 40, "device": 20, "host-etc": 20, "host-proc": 20, "proc-writable": 15,
    "sysfs-writable": 15, "cgroup-writable": 15, "host-dev": 20, "kubelet": 20, "host-log": 8, "host-path": 5,
}  # fmt: skip

_KNOWN = (
    "capabilities", "bounding", "seccomp", "user_namespace", "uid_map", "shared_namespaces", "no_new_privs",
    "apparmor", "sensitive_mounts",
)  # fmt: skip


def from_event(event: ContainerEvent) -> Posture:
    """Returns the posture that the kernel recorded when it armed the container's first task."""
    return scored(
        Posture(
            capabilities=capabilities.names(event.cap_effective),
            bounding=capabilities.names(event.cap_bounding),
            seccomp=SECCOMP_MODES[event.seccomp] if event.seccomp < len(SECCOMP_MODES) else None,
            user_namespace=event.user_ns_level > 0,
            shared_namespaces=namespaces.names(event.shared_namespaces),
            no_new_privs=bool(event.facts & Fact.NO_NEW_PRIVS),
        )
    )


def _capability_reasons(posture: Posture) -> list[tuple[int, str]]:
    held = set(posture.capabilities or ())
    if posture.user_namespace:
        return []  # they are only effective in its own user namespace
    return [(weight, name) for name, weight in _STRONG.items() if name in held]


def _mount_reasons(mounts: tuple[SensitiveMount, ...]) -> list[tuple[int, str]]:
    worst: dict[str, int] = {}
    for mount in mounts:
        weight = _MOUNTS.get(mount.kind, 5)
        worst[mount.kind] = max(worst.get(mount.kind, 0), weight if mount.writable else weight // 2)
    return [(weight, kind) for kind, weight in worst.items()]


def scored(posture: Posture) -> Posture:
    """The posture with its score, the reasons for it, heaviest first, and whether it counts as privileged."""
    reasons = _capability_reasons(posture) + _mount_reasons(posture.sensitive_mounts)
    if posture.seccomp == "disabled":
        reasons.append((10, "no seccomp filter"))
    if posture.no_new_privs is False:
        reasons.append((2, "new privileges allowed"))
    for name in posture.shared_namespaces or ():
        if name in _SHARED:
            reasons.append((_SHARED[name], f"host {name} namespace"))
    reasons.sort(key=lambda reason: -reason[0])
    # The meaning of `--privileged`: all capabilities, the host's user namespace, no filter. The bounding set
    # also shows it for a container that starts its first program as an unprivileged user.
    held = set(posture.bounding or posture.capabilities or ())
    unbound = {"CAP_SYS_ADMIN", "CAP_SYS_RAWIO"} <= held and posture.seccomp == "disabled"
    privileged = unbound and not posture.user_namespace
    score = min(100, sum(weight for weight, _ in reasons))
    return replace(posture, score=score, reasons=tuple(text for _, text in reasons), privileged=privileged)


def merge(first: Posture | None, second: Posture | None) -> Posture | None:
    """Merges two postures and scores the result: the second one supplies what the first one lacks.

    The order is the kernel's own word of the first task, then /proc, then configuration files.
    """
    if first is None or second is None:
        return first or second
    gaps = {name: getattr(second, name) for name in _KNOWN if getattr(first, name) in (None, ())}
    return scored(replace(first, **gaps))
