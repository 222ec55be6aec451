# SPDX-License-Identifier: Apache-2.0
"""Landlock: a second fence around files, ports and sockets that needs no privilege and cannot be undone.

An extension of the configuration (`linux.landlock`, or the annotation `org.ringfence.landlock=derive`).
Derived rules say again what mounts, read-only and masked paths say: a process that finds a way around its
mounts (a leaked descriptor, a remount) still cannot write there.

A rule gives rights to a path and all below it, and none takes any away. So where something below a path may
do less, the path is split: it gets what all of it may do, and each of its entries a rule of its own. Below a
procfs that cannot be done, as the directories of processes come and go: there the mounts alone stand.
"""

from __future__ import annotations

import os
import stat
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.linux import Landlock

__all__ = ["ANNOTATION", "build", "handled", "plan", "wanted"]

ANNOTATION = "org.ringfence.landlock"
# linux/landlock.h
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_TRUNCATE, _IOCTL_DEV, _RESOLVE_UNIX = 1 << 14, 1 << 15, 1 << 16
_BY_ABI = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: _IOCTL_DEV, 9: _RESOLVE_UNIX}  # 2: REFER
_READ = READ_FILE | READ_DIR
_FILE_ONLY = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEV | _RESOLVE_UNIX
_BIND_TCP, _CONNECT_TCP, _BIND_UDP, _CONNECT_UDP = 1, 2, 4, 8
_PORTS_BY_ABI = {4: _BIND_TCP | _CONNECT_TCP, 10: _BIND_UDP | _CONNECT_UDP}
_PATH_BENEATH, _NET_PORT = 1, 2
_SCOPES = 3  # abstract unix sockets and signals (ABI 6)
# What may be done with a path, in rising order. NOTHING still lists directories: their parents must.
NOTHING, LOOK, WRITE = 0, 1, 2
_MOST_ENTRIES = 4096


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
    """Every filesystem right that this kernel's Landlock can refuse, of those that we know."""
    return sum(bits for version, bits in _BY_ABI.items() if abi >= version)


def _ports(rules: Landlock, abi: int) -> list[tuple[int, tuple[int, ...]]]:
    """(right, ports that have it) for each right that is asked for and that this kernel knows."""
    known = sum(bits for version, bits in _PORTS_BY_ABI.items() if abi >= version)
    asked = (
        (_BIND_TCP, rules.bind_tcp),
        (_CONNECT_TCP, rules.connect_tcp),
        (_BIND_UDP, rules.bind_udp),
        (_CONNECT_UDP, rules.connect_udp),
    )
    missing = [right for right, ports in asked if ports is not None and not right & known]
    if missing:
        log.warn(f"landlock: this kernel (ABI {abi}) cannot hold back {_PORT_NAMES[missing[0]]} and newer")
    return [(right, ports) for right, ports in asked if ports is not None and right & known]


_PORT_NAMES = {
    _BIND_TCP: "bindTcp",
    _CONNECT_TCP: "connectTcp",
    _BIND_UDP: "bindUdp",
    _CONNECT_UDP: "connectUdp",
}


def build(rules: Landlock, config: Config, *, scope: bool = True) -> int:
    """A ruleset's descriptor for the tree that is / now, or -1 where the kernel has no Landlock.

    `scope`: False for what joins a running container, so that it can still signal what runs there.
    """
    abi = syscalls.landlock_abi()
    if abi == 0:
        log.warn("landlock is asked for, but this kernel has none")
        return -1
    filesystem = handled(abi)
    ports = _ports(rules, abi)
    network = sum(right for right, _ in ports)
    scopes = _SCOPES if scope and rules.scope and abi >= 6 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8  # an older kernel refuses members that it does not know
    ruleset = syscalls.landlock_create_ruleset(pack("QQQ", filesystem, network, scopes)[:size])
    by_level = {NOTHING: READ_DIR, LOOK: _READ | EXECUTE, WRITE: filesystem}
    if rules.derive:
        for path, level in plan(_derived(config), _listed):
            _allow(ruleset, path, by_level[level] & filesystem)
    for paths, rights in (
        (rules.read, _READ),
        (rules.write, filesystem & ~EXECUTE),
        (rules.execute, _READ | EXECUTE),
        (rules.connect_unix, _RESOLVE_UNIX),
    ):
        for path in paths:
            _allow(ruleset, path, rights & filesystem)
    for right, numbers in ports:
        for port in numbers:
            syscalls.landlock_add_rule(ruleset, _NET_PORT, pack("QQ", right, port))
    return ruleset


def _derived(config: Config) -> dict[str, int]:
    """What the configuration lets a workload do with each path that it speaks of; a later word counts."""
    levels = {"": LOOK if config.root_readonly else WRITE}
    procfs: list[str] = []
    for mount in config.mounts:
        place = _real(mount.destination)
        read_only = (mount.attr_set | mount.rattr_set) & syscalls.MOUNT_ATTR_RDONLY
        levels[place] = LOOK if read_only else WRITE
        if mount.type == "proc":
            procfs.append(place)
    for paths, level in ((config.linux.readonly, LOOK), (config.linux.masked, NOTHING)):
        for path in paths:
            place = _real(path)
            if os.path.lexists(place) and not any(place.startswith(f"{base}/") for base in procfs):
                levels[place] = level
    return levels


def _real(path: str) -> str:
    """Where it leads in the container's tree, without a slash at its end (so / is the empty string)."""
    return os.path.realpath(path).rstrip("/")


def _listed(path: str) -> list[str]:
    """Names in a directory that are no symlinks: what those lead to has its own place."""
    try:
        names = os.listdir(path or "/")
    except OSError:
        return []
    return [name for name in names if not os.path.islink(f"{path}/{name}")]


def plan(levels: dict[str, int], listed: object) -> list[tuple[str, int]]:
    """(path, level) of the rules that say what `levels` says; `listed` gives the names in a directory."""
    assert callable(listed)
    rules: list[tuple[str, int]] = []
    pending = list(levels.items())
    while pending:
        path, level = pending.pop()
        lower = [each for other, each in levels.items() if each < level and other.startswith(f"{path}/")]
        if not lower:
            rules.append((path or "/", level))
            continue
        rules.append((path or "/", min(lower)))
        names = listed(path)
        if len(names) > _MOST_ENTRIES:
            log.warn(f"landlock: {path} has {len(names)} entries: they may only do what all of them may")
            continue
        pending += [(f"{path}/{name}", level) for name in names if f"{path}/{name}" not in levels]
    return rules


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _FILE_ONLY
        if rights:
            syscalls.landlock_add_rule(ruleset, _PATH_BENEATH, pack("=Qi", rights, fd))
    finally:
        os.close(fd)
