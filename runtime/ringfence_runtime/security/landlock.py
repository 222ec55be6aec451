# SPDX-License-Identifier: Apache-2.0
"""Landlock: a second fence around files, ports and abstract sockets that needs no privilege and cannot be
undone.

An extension of the configuration (`linux.landlock`, or the annotation `org.ringfence.landlock=derive`).
Derived rules say again what the mounts say: what is writable may be written, the rest only read. So a
process that finds a way around its mounts (a leaked descriptor, a remount) still cannot write there.
"""

from __future__ import annotations

import os
from _struct import pack

from ringfence_runtime import _sys, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.linux import Landlock

__all__ = ["ANNOTATION", "build", "wanted"]

ANNOTATION = "org.ringfence.landlock"
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_BY_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # REFER, TRUNCATE, IOCTL_DEV
_READ = READ_FILE | READ_DIR
_FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14 | 1 << 15


def wanted(config: Config) -> Landlock | None:
    """The rules that the configuration or its annotation asks for."""
    if config.linux.landlock is not None:
        return config.linux.landlock
    if config.annotations.get(ANNOTATION) == "derive":
        from ringfence_runtime.spec.linux import Landlock
        from ringfence_runtime.spec.node import Node

        return Landlock(Node({"scope": False}, f"annotations.{ANNOTATION}"))
    return None


def handled(abi: int) -> int:
    """Every filesystem right that this kernel's Landlock can refuse."""
    rights = 0
    for version, bits in _BY_ABI.items():
        if abi >= version:
            rights |= bits
    return rights


def _derived(config: Config) -> Iterable[tuple[str, bool]]:
    """(path, writable) of the root and every mount, then of the read-only and masked paths."""
    yield "/", not config.root_readonly
    for mount in config.mounts:
        read_only = (mount.attr_set | mount.rattr_set) & _sys.MOUNT_ATTR_RDONLY
        yield mount.destination, not read_only


def build(rules: Landlock, config: Config) -> int:
    """A ruleset's descriptor for the tree that is / now, or -1 where the kernel has no Landlock."""
    abi = _sys.landlock_abi()
    if abi == 0:
        log.warn("landlock is asked for, but this kernel has none")
        return -1
    filesystem = handled(abi)
    network = 0
    if abi >= 4:
        network = (1 if rules.bind_tcp is not None else 0) | (2 if rules.connect_tcp is not None else 0)
    scope = 3 if rules.scope and abi >= 6 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # an older kernel refuses members that it does not know
    ruleset = _sys.landlock_create_ruleset(pack("QQQ", filesystem, network, scope)[:size])
    read, write = (_READ | EXECUTE), filesystem
    if rules.derive:
        # A rule below a path can only add rights, so a writable root with read-only mounts is split by its
        # entries.
        for path, writable in _split(list(_derived(config))):
            _allow(ruleset, path, (write if writable else read) & filesystem)
    for paths, rights in (
        (rules.read, _READ),
        (rules.write, filesystem & ~EXECUTE),
        (rules.execute, _READ | EXECUTE),
    ):
        for path in paths:
            _allow(ruleset, path, rights & filesystem)
    for ports, right in ((rules.bind_tcp or (), 1), (rules.connect_tcp or (), 2)):
        for port in ports:
            _sys.landlock_add_rule(ruleset, 2, pack("QQ", right, port))
    return ruleset


def _split(entries: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Replace a writable path that has read-only ones below it by its entries, each judged alone."""
    result: list[tuple[str, bool]] = []
    closed = [path.rstrip("/") for path, writable in entries if not writable]
    for path, writable in entries:
        base = path.rstrip("/")
        if not writable or not any(other.startswith(f"{base}/") for other in closed):
            result.append((path, writable))
            continue
        result.append((path, False))
        try:
            names = os.listdir(path)
        except OSError:
            continue
        for name in names:
            inner = f"{base}/{name}"
            if inner not in closed and not os.path.islink(inner):
                below = [(other, False) for other in closed if other.startswith(f"{inner}/")]
                result.extend(_split([(inner, True), *below]))
    return result


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        if os.fstat(fd).st_mode & 0o170000 != 0o040000:
            rights &= _FILE_ONLY
        _sys.landlock_add_rule(ruleset, 1, pack("=Qi", rights, fd))
    finally:
        os.close(fd)
