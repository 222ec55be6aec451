# SPDX-License-Identifier: Apache-2.0
"""Capabilities by name, and the five sets of a task (capabilities(7))."""

from __future__ import annotations

from ringfence_runtime import _sys

__all__ = ["CAPABILITIES", "DEFAULT", "apply_bounding", "apply_sets", "default_sets", "held", "mask_names"]

_NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
CAPABILITIES = {f"CAP_{name}": number for number, name in enumerate(_NAMES)}
ALL = (1 << len(_NAMES)) - 1
# Docker's fourteen.
DEFAULT = tuple(
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)


def default_sets(uid: int) -> dict[str, int]:
    """The five sets of a process whose configuration names none: Docker's fourteen, never the runtime's own.

    Who is not root may come by them with a setuid program, where no_new_privs does not forbid it.
    """
    mask = sum(1 << CAPABILITIES[name] for name in DEFAULT)
    own = 0 if uid else mask
    return {"bounding": mask, "effective": own, "permitted": own, "inheritable": 0, "ambient": 0}


def mask_names(mask: int) -> list[str]:
    """The names in a mask."""
    return [name for name, number in CAPABILITIES.items() if mask >> number & 1]


def held() -> int:
    """What this process may grant: its permitted set."""
    return _sys.capget()[1]


def apply_bounding(wanted: int) -> None:
    """Drop every capability outside `wanted` from the bounding set (needs CAP_SETPCAP still effective)."""
    number = 0
    while True:
        if not wanted >> number & 1:
            try:
                _sys.prctl(_sys.PR_CAPBSET_DROP, number)
            except OSError as error:
                if number > 40 or error.errno == 22:  # EINVAL: above what this kernel knows
                    return
                raise
        number += 1
        if number > 63:
            return


SYS_ADMIN = 1 << 21


def apply_sets(sets: dict[str, int], *, keep: int = 0) -> list[str]:
    """Set effective, permitted, inheritable and ambient; returns names that this process could not grant.

    The specification asks that a capability that cannot be granted be a warning and not an error. `keep`
    stays permitted and effective until execve, which computes both anew from the bounding, inheritable and
    ambient sets (capabilities(7)): seccomp without no_new_privs wants CAP_SYS_ADMIN, and it comes after this.
    """
    available = held()
    permitted = sets["permitted"] & available
    effective = sets["effective"] & permitted
    # Beyond permitted, a task may only inherit what is in its bounding set; without CAP_SETPCAP not even
    # that.
    inheritable = sets["inheritable"] & available
    _sys.capset(effective | keep & available, permitted | keep & available, inheritable)
    ambient = sets["ambient"] & permitted & inheritable
    _sys.prctl(_sys.PR_CAP_AMBIENT, _sys.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if ambient >> number & 1:
            _sys.prctl(_sys.PR_CAP_AMBIENT, _sys.PR_CAP_AMBIENT_RAISE, number)
    return mask_names((sets["permitted"] | sets["effective"]) & ~available)
