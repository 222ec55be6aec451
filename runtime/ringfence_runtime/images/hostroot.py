# SPDX-License-Identifier: Apache-2.0
"""The host's own root, read-only, as a container's: which mounts belong to it, and what must not be seen.

Read-only does not stop a connect(2) to a socket or the reading of a key. So what holds sockets, secrets and
other people's data is covered, and only mounts that hold programs come along.
"""

from __future__ import annotations

import os

__all__ = ["host_binds", "host_masks"]

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu", "/etc")
_MASKED = (
    "/root", "/home", "/boot", "/srv", "/mnt", "/media", "/lost+found", "/var/lib", "/var/spool", "/var/mail",
    "/var/cache", "/var/log", "/var/backups", "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-",
    "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/etc/kubernetes", "/etc/krb5.keytab",
    "/etc/ringfence", "/etc/docker", "/etc/containerd", "/etc/NetworkManager", "/etc/wireguard",
)  # fmt: skip
_SCRATCH = ("/run", "/tmp", "/var/tmp")
_KINDS_LEFT_OUT = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "bpf", "tracefs", "debugfs", "securityfs",
     "mqueue", "hugetlbfs", "configfs", "pstore", "autofs"))  # fmt: skip


def host_binds() -> tuple[str, ...]:
    """Mount points below the directories of programs (a separate /usr), outermost first."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, rest = line.partition(b" - ")
            path = os.fsdecode(fields.split(b" ")[4].decode("unicode_escape").encode("latin-1"))
            inside = any(path == top or path.startswith(f"{top}/") for top in _PROGRAMS)
            if inside and rest.split(b" ")[0].decode() not in _KINDS_LEFT_OUT:
                found.append(path)
    return tuple(sorted(set(found)))


def host_masks(store: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what to cover, what to make an empty tmpfs); only what exists and is no symlink."""
    masked = tuple(path for path in (*_MASKED, store) if os.path.lexists(path) and not os.path.islink(path))
    return masked, tuple(path for path in _SCRATCH if os.path.isdir(path) and not os.path.islink(path))
