# SPDX-License-Identifier: Apache-2.0
"""The host's own root, read-only, as a container's root: its mounts, and the paths to hide.

A read-only mount does not prevent connect(2) to a socket or reading a key. So directories with sockets,
secrets and users' data are covered, and only mounts with programs are included.
"""

from __future__ import annotations

import os

from ringfence_linux import mountinfo

__all__ = ["host_binds", "host_masks"]

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu", "/etc")
_MASKED = (
    "/root", "/home", "/boot", "/srv", "/mnt", "/media", "/lost+found", "/var/lib", "/var/spool", "/var/mail",
    "/var/cache", "/var/log", "/var/backups", "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-",
    "/etc/sudoers", "/etc/sudoers.d", "/etc/ssh", "/etc/ssl/private", "/etc/kubernetes", "/etc/krb5.keytab",
    "/etc/ringfence", "/etc/docker", "/etc/containerd", "/etc/NetworkManager", "/etc/wireguard",
    "/etc/letsencrypt", "/etc/pki/tls/private", "/etc/ipsec.d", "/etc/swanctl", "/etc/openvpn", "/etc/ppp",
    "/etc/wpa_supplicant", "/etc/iwd", "/etc/netplan", "/etc/rancher", "/etc/etcd", "/etc/crio",
    "/etc/containers", "/etc/ceph", "/etc/salt", "/etc/puppetlabs", "/etc/chef", "/etc/ansible",
    "/etc/vault.d", "/etc/consul.d", "/etc/nomad.d", "/etc/sssd", "/etc/samba", "/etc/crypttab",
    "/etc/cryptsetup-keys.d", "/etc/credstore", "/etc/credstore.encrypted", "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d", "/etc/postfix/sasl", "/etc/mysql", "/etc/postgresql", "/etc/redis",
    "/var/db", "/var/opt", "/var/local", "/var/crash", "/var/kerberos", "/var/www", "/data", "/export",
)  # fmt: skip
# Besides these names, everything that is not world-readable.
_LOOKED_THROUGH = "/etc"
_MOST_LOOKED_AT = 20_000
_SCRATCH = ("/run", "/tmp", "/var/tmp")
_KINDS_LEFT_OUT = frozenset(
    ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2", "bpf", "tracefs", "debugfs", "securityfs",
     "mqueue", "hugetlbfs", "configfs", "pstore", "autofs"))  # fmt: skip


def host_binds() -> tuple[str, ...]:
    """Returns mount points below the directories of programs (a separate /usr), outermost first."""
    found = []
    for mount in mountinfo.read():
        inside = any(mount.target == top or mount.target.startswith(f"{top}/") for top in _PROGRAMS)
        if inside and mount.fstype not in _KINDS_LEFT_OUT:
            found.append(mount.target)
    return tuple(sorted(set(found)))


def host_masks(store: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns (paths to cover, paths for an empty tmpfs); only those that exist and are no symlinks."""
    masked = [path for path in (*_MASKED, store) if os.path.lexists(path) and not os.path.islink(path)]
    masked += [path for path in _private(_LOOKED_THROUGH) if not _below(path, masked)]
    return tuple(masked), tuple(path for path in _SCRATCH if os.path.isdir(path) and not os.path.islink(path))


def _below(path: str, others: list[str]) -> bool:
    return any(path == other or path.startswith(f"{other}/") for other in others)


def _private(top: str) -> list[str]:
    """Returns files and directories below `top` that are not world-readable."""
    found: list[str] = []
    pending, left = [top], _MOST_LOOKED_AT
    while pending and left > 0:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            left -= 1
            if entry.is_symlink():
                continue
            if not entry.stat(follow_symlinks=False).st_mode & 0o004:
                found.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
    return found
