# SPDX-License-Identifier: Apache-2.0
"""A mount of type `cgroup`: the container's view of its own cgroup, on hosts of either version."""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime.launch.mounts import HARD, new_filesystem
from ringfence_runtime.launch.operations.base import NotLowerableError
from ringfence_runtime.launch.operations.lowering import text
from ringfence_runtime.launch.operations.mounts import (
    MountOperation,
    attach,
    attribute_changes,
    bind_directory,
    lower_attach,
)
from ringfence_runtime.launch.paths import ensure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering
    from ringfence_runtime.launch.program import Slot

__all__ = ["MountLegacyCgroups", "MountUnifiedCgroup"]

_BASE = HARD & ~syscalls.MOUNT_ATTR_RDONLY
_BASE_MODE = ("mode", "755")


class MountUnifiedCgroup(MountOperation):
    """Attaches the version 2 hierarchy. Without a cgroup namespace the host's directory is bound."""

    group: Cgroup
    own_namespace: bool
    copies_links = False

    def describe(self) -> str:
        return f"attach the version 2 cgroup at {self.mount.destination}"

    def make(self, world: World) -> int:
        if self.own_namespace:
            try:
                return new_filesystem("cgroup2", "cgroup2", (), self.mount.attr_set)
            except OSError:
                pass  # a user namespace without a cgroup namespace of its own cannot mount it
        return bind_directory(self.group.unified or "/sys/fs/cgroup", self.mount)

    def _place(self, world: World, tree: int) -> None:
        attach(world.root, self.mount, tree)
        os.close(tree)

    def lower(self, target: Lowering) -> None:
        self.check_lowerable()
        if not self.own_namespace:
            raise NotLowerableError(f"{self.describe()}, by a bind of the host's directory")
        tree = target.filesystem("cgroup2", (("source", "cgroup2"),), self.mount.attr_set)
        self.lower_place(target, tree, directory=True)


class MountLegacyCgroups(MountOperation):
    """Attaches a tmpfs with one directory for each hierarchy, and a symlink for each further controller."""

    group: Cgroup
    own_namespace: bool
    copies_links = False

    def describe(self) -> str:
        return f"attach the version 1 cgroups at {self.mount.destination}"

    def _hierarchies(self) -> list[tuple[str, str, list[str]]]:
        """(key, name of the directory, names of the symlinks to it) of each hierarchy."""
        found = []
        for key, directory in self.group.dirs.items():
            name = os.path.basename(directory[: -len(self.group.path)]) if key else "unified"
            links = [each for each in key.split(",") if each not in (key, name)]
            found.append((key, name, links))
        return found

    def _is_read_only(self) -> bool:
        return bool(self.mount.attr_set & syscalls.MOUNT_ATTR_RDONLY)

    def make(self, world: World) -> int:
        return new_filesystem("tmpfs", "tmpfs", (_BASE_MODE,), _BASE)

    def _place(self, world: World, tree: int) -> None:
        attach(world.root, self.mount, tree)
        for key, name, links in self._hierarchies():
            hierarchy = self._hierarchy(key)
            found = ensure(tree, name, directory=True)
            syscalls.move_mount(hierarchy, found, path=name)
            os.close(hierarchy)
            os.close(found)
            for link in links:
                os.symlink(name, link, dir_fd=tree)
        if self._is_read_only():
            syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, path=self.mount.destination)
        os.close(tree)

    def _hierarchy(self, key: str) -> int:
        if not self.own_namespace:
            return bind_directory(self.group.dirs[key], self.mount)
        fstype = _type_of(key)
        return new_filesystem(fstype, fstype, _options_of(key), self.mount.attr_set)

    def lower(self, target: Lowering) -> None:
        self.check_lowerable()
        tree = target.filesystem("tmpfs", (("source", "tmpfs"), _BASE_MODE), _BASE)
        lower_attach(target, self.mount, tree, directory=True)
        for index, (key, name, links) in enumerate(self._hierarchies()):
            hierarchy = self._lower_hierarchy(target, index, key)
            target.move(hierarchy, target.ensure(name, directory=True, root=tree))
            for link in links:
                target.program.call("symlinkat", text(name), tree, text(link))
        if self._is_read_only():
            target.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY)

    def _lower_hierarchy(self, target: Lowering, index: int, key: str) -> Slot:
        if self.own_namespace:
            fstype = _type_of(key)
            return target.filesystem(fstype, (("source", fstype), *_options_of(key)), self.mount.attr_set)
        tree = target.program.fd(f"cgroup mount {index}")
        for change in attribute_changes(self.mount):
            target.set_attributes(tree, **change)
        return tree


def _type_of(key: str) -> str:
    return "cgroup" if key else "cgroup2"


def _options_of(key: str) -> list[tuple[str, str | None]]:
    """The mount options of a hierarchy: its controllers, or the name of one without controllers."""
    options: list[tuple[str, str | None]] = []
    for word in key.split(",") if key else ():
        name, equals, value = word.partition("=")
        options += [("none", None), (name, value)] if equals else [(name, None)]
    return options
