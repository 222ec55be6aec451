# SPDX-License-Identifier: Apache-2.0
"""Capabilities by name, and the five sets of a task (capabilities(7))."""

from __future__ import annotations

from ringfence_linux import syscalls
from ringfence_linux.capabilities import CAPABILITIES

__all__ = ["DEFAULT", "SYS_ADMIN", "apply_bounding", "default_sets", "held"]

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
