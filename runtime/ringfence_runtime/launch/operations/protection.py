# SPDX-License-Identifier: Apache-2.0
"""Masked paths, read-only paths and the read-only root."""

from __future__ import annotations

import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.launch.mounts import HARD, bind_tree, new_filesystem
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.launch.paths import NULL, check_device, try_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering

__all__ = ["Mask", "ReadOnly", "ReadOnlyRoot"]

# Empty and read-only; its mode lets `find` and `du` look into it without an error.
_EMPTY = (("size", "0"), ("nr_inodes", "1"), ("mode", "555"))
_NULL_ATTRIBUTES = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC


class Mask(Operation):
    """Hides a path: a directory under an empty read-only tmpfs, any other file under the null device.

    A path that does not exist needs no mask. Every other failure to open it is an error. A symlink is
    followed below the root, and its target is masked. The null device is the host's, checked again
    (CVE-2025-31133).
    """

    path: str
    label: str = ""  # the SELinux context of the tmpfs

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, world: World) -> None:
        found = try_open(world.root, self.path)
        if found is None:
            return
        try:
            if stat.S_ISDIR(os.fstat(found).st_mode):
                label = (("context", self.label),) if self.label else ()
                tree = new_filesystem("tmpfs", "tmpfs", (*_EMPTY, *label), HARD)
            else:
                check_device(world.null, *NULL, "/dev/null")
                tree = bind_tree(world.null, _NULL_ATTRIBUTES)
            try:
                syscalls.move_mount(tree, found, path=self.path)
            finally:
                os.close(tree)
        finally:
            os.close(found)

    def lower(self, target: Lowering) -> None:
        if self.label:
            raise NotLowerableError(f"{self.describe()}, with an SELinux label")
        program = target.program
        found, absent = target.try_open(self.path)
        other = program.add("skip_unless_directory", found)
        target.move(target.filesystem("tmpfs", (("source", "tmpfs"), *_EMPTY), HARD), found)
        done = program.add("skip")
        program.skip(other)
        program.add("check_device", target.null, stat.S_IFCHR, os.makedev(*NULL))
        node = target.copy_tree(target.null)
        target.set_attributes(node, attr_set=_NULL_ATTRIBUTES)
        target.move(node, found)
        program.skip(done)
        program.skip(absent)


class ReadOnly(Operation):
    """Makes a path and all mounts below it read-only. A path that does not exist is left out."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, world: World) -> None:
        found = try_open(world.root, self.path)
        if found is None:
            return
        try:
            tree = bind_tree(found, recursive=True)
            try:
                attributes = syscalls.MOUNT_ATTR_RDONLY
                syscalls.mount_setattr(tree, attr_set=attributes, recursive=True, path=self.path)
                syscalls.move_mount(tree, found, path=self.path)
            finally:
                os.close(tree)
        finally:
            os.close(found)

    def lower(self, target: Lowering) -> None:
        found, absent = target.try_open(self.path)
        tree = target.copy_tree(found, recursive=True)
        target.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
        target.move(tree, found)
        target.program.skip(absent)


class ReadOnlyRoot(Operation):
    """Makes the root filesystem itself read-only; mounts on it keep their attributes."""

    def describe(self) -> str:
        return "make the root filesystem read-only"

    def execute(self, world: World) -> None:
        syscalls.mount_setattr(world.root, attr_set=syscalls.MOUNT_ATTR_RDONLY, path="/")

    def lower(self, target: Lowering) -> None:
        target.set_attributes(target.root, attr_set=syscalls.MOUNT_ATTR_RDONLY)
