# SPDX-License-Identifier: Apache-2.0
"""Which cgroup hierarchy identifies containers, and what a cgroup directory is called there.

A host is pure v2, v1, or hybrid (v1 controllers with a cgroup2 mount beside them). On v1 and hybrid hosts the
cgroup2 path of a container may be the root (crun does that), so a v1 controller that runtimes always use
identifies it. This module only reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ringfence.abi import (
    HIERARCHY_CPU,
    HIERARCHY_DEVICES,
    HIERARCHY_FREEZER,
    HIERARCHY_MEMORY,
    HIERARCHY_PIDS,
    HIERARCHY_V2,
    LEVELS,
)
from ringfence.errors import KernelError
from ringfence_linux import cgroups, mountinfo
from ringfence_linux.cgroups import CONTROLLERS
from ringfence_linux.namespaces import INITIAL_INODES, NAMES, inode

__all__ = [
    "CgroupDir",
    "Hierarchy",
    "HierarchyKind",
    "HostNamespaces",
    "OwnDirectory",
    "cgroup_id",
    "detect",
    "hierarchy_mounts",
    "host_namespaces",
    "own_cgroup",
    "own_cgroups",
    "own_directories",
    "own_lineage",
    "walk",
]

# The position is RF_HIERARCHY_* of config.h, where 0 is v2.
CODES = {
    "devices": HIERARCHY_DEVICES,
    "pids": HIERARCHY_PIDS,
    "memory": HIERARCHY_MEMORY,
    "cpu": HIERARCHY_CPU,
    "freezer": HIERARCHY_FREEZER,
}

WALK_MAX = 262_144  # directories of one walk


class HierarchyKind(StrEnum):
    """How cgroups are mounted on this host."""

    V2 = "v2"
    V1 = "v1"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The hierarchy that identifies containers, and where cgroup-BPF programs are attached."""

    kind: HierarchyKind
    controller: str  # "" for v2
    mount: Path
    v2_mount: Path | None

    @property
    def code(self) -> int:
        """RF_HIERARCHY_* of config.h."""
        return CODES[self.controller] if self.controller else HIERARCHY_V2

    def directory(self, path: str) -> Path:
        """The directory of a cgroup path ("/a/b") of this hierarchy."""
        return self.mount / path.lstrip("/")


class CgroupDir(NamedTuple):
    """One directory of a hierarchy; `path` is what the kernel calls it, "/" for the root."""

    path: str
    cgroup_id: int
    parent_id: int

    @property
    def name(self) -> str:
        """The last component."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class HostNamespaces:
    """Inode numbers of the host's namespaces; `notes` says which were assumed and why."""

    mnt: int
    pid: int
    net: int
    ipc: int
    uts: int
    cgroup: int
    user: int
    time: int
    notes: tuple[str, ...] = ()


def _v1_controllers(cgroups: str) -> set[str]:
    """Controllers that /proc/cgroups shows enabled and bound to a v1 hierarchy (or to v2, as 0)."""
    rows = (line.split() for line in cgroups.splitlines() if not line.startswith("#"))
    return {row[0] for row in rows if len(row) == 4 and row[1] != "0" and row[3] == "1"}


def detect(proc: Path = Path("/proc")) -> Hierarchy:
    """Say which hierarchy identifies containers here.

    Raises KernelError when no usable cgroup hierarchy is mounted.
    """
    mounted = _mounted(proc / "self")
    try:
        bound = _v1_controllers((proc / "cgroups").read_text())
    except OSError:  # CONFIG_PROC_PID_CGROUP off, or hidden: what is mounted is then all there is to know
        bound = set(CONTROLLERS)
    v2_mount = Path(mounted.unified) if mounted.unified else None
    for controller in CONTROLLERS:
        found = mounted.mount_of(controller)
        if found and controller in bound:
            kind = HierarchyKind.HYBRID if v2_mount else HierarchyKind.V1
            return Hierarchy(kind, controller, Path(found), v2_mount)
    if v2_mount is None:
        raise KernelError(
            "no cgroup hierarchy is mounted whole, so containers cannot be distinguished",
            hint="mount -t cgroup2 none /sys/fs/cgroup; in a container, mount the host's /sys/fs/cgroup",
        )
    return Hierarchy(HierarchyKind.V2, "", v2_mount, v2_mount)


def hierarchy_mounts(process: Path = Path("/proc/self")) -> tuple[dict[str, str], str]:
    """Where each v1 controller is mounted whole, and where version 2 is ("" : nowhere)."""
    mounted = _mounted(process)
    v1 = {name: found for name in CONTROLLERS if (found := mounted.mount_of(name))}
    return v1, mounted.unified


def _mounted(process: Path) -> cgroups.Hierarchies:
    """The hierarchies that are mounted whole."""
    return cgroups.hierarchies(mountinfo.read_text(process), whole=True)


def cgroup_id(directory: str | os.PathLike[str]) -> int:
    """The id of a cgroup, as BPF programs see it: kernfs gives the 64-bit node id as inode number.

    (kernel commit 40430452fd5d, 5.5, on machines of 64 bits). Raises OSError.
    """
    return os.stat(directory, follow_symlinks=False).st_ino


def walk(
    hierarchy: Hierarchy,
    *,
    limit: int = WALK_MAX,
    descend: Callable[[CgroupDir], bool] = lambda directory: True,
    cut: Callable[[], object] = lambda: None,
) -> Iterator[CgroupDir]:
    """Every cgroup down to where containers may begin, parents first.

    `descend` is called for each directory after it was read: a container may have any number of cgroups
    below its own. At most `limit` are given; `cut` is called if there are more. Directories that vanish
    meanwhile are skipped.
    """
    mount = os.fspath(hierarchy.mount)
    level = [CgroupDir("/", cgroup_id(mount), 0)]
    seen = 0
    for _ in range(LEVELS):
        below: list[CgroupDir] = []
        for parent in level:
            for child in _children(mount, parent):
                if (seen := seen + 1) > limit:
                    cut()
                    return
                yield child
                if descend(child):
                    below.append(child)
        level = below


def own_cgroup(hierarchy: Hierarchy, proc: Path = Path("/proc")) -> Path | None:
    """The cgroup of this process, also from a cgroup namespace, where /proc/self/cgroup does not show it."""
    shown = hierarchy.directory(_shown_path(frozenset((hierarchy.controller,)), proc))
    if _holds_us(shown):
        return shown
    paths = (hierarchy.directory(found.path) for found in walk(hierarchy))
    return next((path for path in paths if _holds_us(path)), None)


def own_cgroups(hierarchy: Hierarchy) -> frozenset[int]:
    """Ids of the cgroup of this process and of those above it, without the root: these are no containers.

    In a pod the agent lies in a cgroup that looks like any other container's.
    """
    return frozenset(one.cgroup_id for one in own_lineage(hierarchy))


def own_lineage(hierarchy: Hierarchy) -> list[CgroupDir]:
    """The same, from the topmost down to that of this process."""
    path, found = own_cgroup(hierarchy), list[CgroupDir]()
    while path is not None and path != hierarchy.mount:
        found.append(
            CgroupDir(f"/{path.relative_to(hierarchy.mount)}", cgroup_id(path), cgroup_id(path.parent))
        )
        path = path.parent
    return found[::-1]


class OwnDirectory(NamedTuple):
    """A cgroup that this process is in (`own`), or one above it."""

    path: Path
    own: bool


def own_directories(proc: Path = Path("/proc")) -> list[OwnDirectory]:
    """The cgroups of this process in every hierarchy that is mounted whole, those above them, and no root."""
    main = detect(proc)
    current = own_cgroup(main, proc)
    elsewhere = os.path.relpath(current, main.mount) if current else "."
    found: dict[Path, bool] = {}
    for mount in mountinfo.read(proc / "self"):
        if mount.fstype not in ("cgroup", "cgroup2") or not mount.whole:
            continue
        root = Path(mount.target)
        controllers = frozenset(mount.super_options if mount.fstype == "cgroup" else ("",))
        places = (root / _shown_path(controllers, proc).lstrip("/"), root / elsewhere)
        own = next((path for path in places if _holds_us(path)), root)
        while own != root:
            found.setdefault(own, own in places)
            own = own.parent
    return [OwnDirectory(path, own) for path, own in found.items()]


def _shown_path(controllers: frozenset[str], proc: Path) -> str:
    """The path in /proc/self/cgroup (proc(5)), which is relative to the root of the cgroup namespace.

    `controllers` belong to one hierarchy, perhaps with other words; an empty one is version 2.
    """
    paths = cgroups.paths_of("self", proc)
    if "" in controllers:
        return paths.get("", "/")
    return next(
        (path for key, path in paths.items() if key and not controllers.isdisjoint(key.split(","))), "/"
    )


def _holds_us(cgroup: Path) -> bool:
    try:
        return str(os.getpid()) in (cgroup / "cgroup.procs").read_text().split()
    except OSError:  # it is gone, or its kind has none (threaded)
        return False


def _children(mount: str, parent: CgroupDir) -> Iterator[CgroupDir]:
    """The cgroups directly below `parent`."""
    base = parent.path.rstrip("/")
    try:
        with os.scandir(mount + parent.path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield CgroupDir(f"{base}/{entry.name}", entry.inode(), parent.cgroup_id)
    except OSError:
        pass


def host_namespaces(proc: Path = Path("/proc")) -> HostNamespaces:
    """Inode numbers of the host's namespaces, from PID 1 or kthreadd; what cannot be read is noted.

    PID 1 may be unreadable (yama, a hardened host) or not the host's (an agent without hostPID).
    """
    notes: list[str] = []
    inums: dict[str, int] = {}
    pid_ns = inode("self", "pid", proc)
    host_pid = pid_ns is None or pid_ns == INITIAL_INODES["pid"]
    if not host_pid:
        notes.append("the agent is not in the host's PID namespace: run it with hostPID")
    for name in NAMES:
        # kthreadd (PID 2) is in the initial namespaces, too; some hosts hide PID 1 even from root.
        found = (inode("1", name, proc) or inode("2", name, proc)) if host_pid else None
        if found is None and name in INITIAL_INODES:
            found = INITIAL_INODES[name]  # certain: these numbers are fixed
        if found is None:
            found = inode("self", name, proc) or 0
            notes.append(f"/proc/1/ns/{name} cannot be read: the agent's own counts as the host's")
        inums[name] = found
    return HostNamespaces(**inums, notes=tuple(notes))
