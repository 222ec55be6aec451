# SPDX-License-Identifier: Apache-2.0
"""Capabilities by name, and the five sets of a task (capabilities(7))."""

from __future__ import annotations

from ringfence_linux import syscalls
from ringfence_linux.capabilities import CAPABILITIES, names

__all__ = ["DEFAULT", "apply_bounding", "apply_sets", "default_sets", "held"]

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
    """The five sets of a process without configured ones: Docker's fourteen, never those of the runtime.

    Another user than root may get them by a setuid program, unless no_new_privs forbids it.
    """
    mask = sum(1 << CAPABILITIES[name] for name in DEFAULT)
    own = 0 if uid else mask
    return {"bounding": mask, "effective": own, "permitted": own, "inheritable": 0, "ambient": 0}


def held() -> int:
    """What this process may grant: its permitted set."""
    return syscalls.capget()[1]


def apply_bounding(wanted: int) -> None:
    """Drop every capability outside `wanted` from the bounding set (needs CAP_SETPCAP still effective)."""
    number = 0
    while True:
        if not wanted >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
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
    stays permitted and effective until execve, which computes both from the bounding, inheritable and
    ambient sets (capabilities(7)): seccomp is installed later, and needs CAP_SYS_ADMIN without no_new_privs.
    """
    available = held()
    permitted = sets["permitted"] & available
    effective = sets["effective"] & permitted
    # Beyond permitted, a task may only inherit what is in its bounding set; without CAP_SETPCAP not even
    # that.
    inheritable = sets["inheritable"] & available
    syscalls.capset(effective | keep & available, permitted | keep & available, inheritable)
    ambient = sets["ambient"] & permitted & inheritable
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(64):
        if ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
    return list(names((sets["permitted"] | sets["effective"]) & ~available))
