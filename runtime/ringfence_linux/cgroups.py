# SPDX-License-Identifier: Apache-2.0
"""Which cgroup hierarchies a host has, where they are mounted, and in which cgroup of each a process is."""

from __future__ import annotations

import os

from ringfence_linux.mountinfo import parse_line

__all__ = ["CONTROLLERS", "Hierarchies", "hierarchies", "paths_of"]

#: The agent identifies containers by version 2, or by the first of these that has a hierarchy of version 1.
#: Runtimes always set up `devices`; then by how certain it is that a container joins the hierarchy.
CONTROLLERS = ("devices", "pids", "memory", "cpu", "freezer")
_OPTIONS = frozenset(
    ("rw", "ro", "xattr", "noprefix", "clone_children", "cpuset_v2_mode", "release_agent", "nsdelegate")
)


class Hierarchies:
    """Mount points by controller. Version 1 hierarchies are keyed by their controllers (`cpu,cpuacct`,
    `name=x`).
    """

    __slots__ = ("unified", "v1")

    def __init__(self, v1: dict[str, str], unified: str) -> None:
        self.v1 = v1
        self.unified = unified

    @property
    def kind(self) -> str:
        """`v2`, `v1` or `hybrid`."""
        if not self.v1:
            return "v2"
        return "hybrid" if self.unified else "v1"

    def mount_of(self, controller: str) -> str | None:
        """The version 1 mount of one controller."""
        for key, mount in self.v1.items():
            if controller in key.split(","):
                return mount
        return None


def hierarchies(mountinfo: str, *, whole: bool = False) -> Hierarchies:
    """The hierarchies in the text of a mountinfo. The first mount of each counts.

    `whole`: the first one that shows the hierarchy from its root.
    """
    v1: dict[str, str] = {}
    unified = ""
    for line in mountinfo.split("\n"):
        if " - cgroup" not in line:
            continue
        mount = parse_line(line)
        if mount is None or (whole and not mount.whole):
            continue
        if mount.fstype == "cgroup2":
            unified = unified or mount.target
        elif mount.fstype == "cgroup":
            names = [word for word in mount.super_options if word.split("=")[0] not in _OPTIONS]
            v1.setdefault(",".join(names), mount.target)
    return Hierarchies(v1, unified)


def paths_of(pid: int | str = "self", proc: str | os.PathLike[str] = "/proc") -> dict[str, str]:
    """The cgroup of a process in each hierarchy, by its controllers; `` is version 2. Raises OSError."""
    found: dict[str, str] = {}
    with open(f"{os.fspath(proc)}/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            number, _, rest = line.rstrip("\n").partition(":")
            controllers, _, path = rest.partition(":")
            found["" if number == "0" else controllers] = path
    return found
