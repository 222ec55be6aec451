# SPDX-License-Identifier: Apache-2.0
"""/dev of the container: device nodes and the usual symlinks.

In runc CVE-2026-41579 and crun CVE-2026-47766 the image had a symlink as /dev. Here every name is resolved
below the root and created relative to the descriptor of its directory.
"""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.mounts import bind_tree
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.launch.operations.lowering import text
from ringfence_runtime.launch.paths import check_device, ensure, open_in_root, parent_of
from ringfence_runtime.spec.linux import DEVICE_TYPES, Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering

__all__ = ["FindDevice", "LinkDevices", "MakeDevice"]

_LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)
_PTMX = ("pts/ptmx", "ptmx")
# Errors of unlink("ptmx"): a mount point, a directory or a read-only filesystem keeps the image's file.
_KEPT = (errno.EBUSY, errno.EISDIR, errno.EROFS)


class MakeDevice(Operation):
    """Creates a device node.

    `mapped`: in a user namespace no node can be created, so the host's node is bound.
    """

    device: Device
    mapped: bool

    def describe(self) -> str:
        return f"make the device {self.device.path}"

    def _is_ptmx(self) -> bool:
        """/dev/ptmx is a symlink into the container's devpts; a node would be that of the host's."""
        return self.device.path.rstrip("/") == "/dev/ptmx"

    def execute(self, world: World) -> None:
        if self._is_ptmx() and world.devpts >= 0:
            return
        try:
            directory, name = parent_of(world.root, self.device.path, follow=False)
            try:
                self._make(world, directory, name)
            finally:
                os.close(directory)
        except OSError as error:
            raise Error(f"cannot make the device {self.device.path}: {error.strerror}") from None

    def _make(self, world: World, directory: int, name: str) -> None:
        device = self.device
        made = world.device_fds.pop(device.path, -1)
        if made >= 0:
            return _attach(directory, name, device, made)
        if self.mapped:
            return _bind(directory, name, device)
        try:
            os.mknod(name, self._mode(), self._number(), dir_fd=directory)
        except FileExistsError:
            return _check_existing(directory, name, device)
        except PermissionError:
            return _bind(directory, name, device)
        # The owner is set by descriptor, as the name may be another file by now. mknod set the mode.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            syscalls.fchownat_empty(fd, device.uid, device.gid)
        finally:
            os.close(fd)
        return None

    def _mode(self) -> int:
        return DEVICE_TYPES[self.device.type] | self.device.mode

    def _number(self) -> int:
        return os.makedev(self.device.major, self.device.minor)

    def lower(self, target: Lowering) -> None:
        device, program = self.device, target.program
        if self._is_ptmx() and target.devpts is not None:
            return
        parent, _, name = device.path.rstrip("/").rpartition("/")
        if self.mapped or name in ("", ".", ".."):
            raise NotLowerableError(self.describe())
        directory, node = target.directory(parent), program.slot()
        program.call("mknodat", directory, text(name), self._mode(), self._number())
        if device.uid or device.gid:
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            program.call("openat", directory, text(name), flags, 0, into=node)
            program.call("fchownat", node, b"", device.uid, device.gid, syscalls.AT_EMPTY_PATH)


class FindDevice(Operation):
    """Checks that a device exists in a /dev that is bound from the host, where nothing is created."""

    device: Device

    def describe(self) -> str:
        return f"find the device {self.device.path}"

    def execute(self, world: World) -> None:
        directory, _, name = self.device.path.rstrip("/").rpartition("/")
        try:
            fd = open_in_root(world.root, directory)
            try:
                _check_existing(fd, name, self.device)
            finally:
                os.close(fd)
        except OSError as error:
            raise Error(f"cannot make the device {self.device.path}: {error.strerror}") from None


class LinkDevices(Operation):
    """Creates the usual symlinks in /dev, and /dev/ptmx as a symlink into the container's devpts."""

    def describe(self) -> str:
        return "link /dev/fd, /dev/stdin, /dev/stdout, /dev/stderr and /dev/ptmx"

    def execute(self, world: World) -> None:
        dev = ensure(world.root, "/dev", directory=True, follow=False)
        try:
            for points_to, name in _LINKS:
                try:
                    os.symlink(points_to, name, dir_fd=dev)
                except FileExistsError:
                    continue
            if world.devpts >= 0:
                _link_ptmx(dev)
        finally:
            os.close(dev)

    def lower(self, target: Lowering) -> None:
        program, dev = target.program, target.directory("/dev")
        for points_to, name in _LINKS:
            program.call("symlinkat", text(points_to), dev, text(name), errors=(errno.EEXIST,))
        if target.devpts is not None:
            # A file that is kept makes symlinkat fail with EEXIST, which changes nothing.
            program.call("unlinkat", dev, text(_PTMX[1]), 0, errors=(*_KEPT, errno.ENOENT))
            program.call("symlinkat", text(_PTMX[0]), dev, text(_PTMX[1]), errors=(errno.EEXIST,))


def _link_ptmx(dev: int) -> None:
    try:
        os.unlink(_PTMX[1], dir_fd=dev)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in _KEPT:
            return
        raise
    os.symlink(*_PTMX, dir_fd=dev)


def _check_existing(directory: int, name: str, device: Device) -> None:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(fd)
        same = stat.S_IFMT(status.st_mode) == DEVICE_TYPES[device.type]
        if same and (device.type == "p" or status.st_rdev == os.makedev(device.major, device.minor)):
            return
    finally:
        os.close(fd)
    raise OSError(errno.EEXIST, "another file is there")


def _bind(directory: int, name: str, device: Device) -> None:
    """Binds the host's node with the device's path, after a check that it is the right device."""
    if device.type == "p":
        os.mkfifo(name, device.mode, dir_fd=directory)
        return
    source = os.open(device.path, os.O_PATH | os.O_CLOEXEC)
    try:
        if device.type == "b":
            status = os.fstat(source)
            if not stat.S_ISBLK(status.st_mode) or status.st_rdev != os.makedev(device.major, device.minor):
                raise OSError(errno.ENODEV, "the host's node of this name is another device")
        else:
            check_device(source, device.major, device.minor, device.path)
        tree = bind_tree(source, syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC)
    finally:
        os.close(source)
    _attach(directory, name, device, tree)


def _attach(directory: int, name: str, device: Device, tree: int) -> None:
    found = ensure(directory, name, directory=False, follow=False)
    try:
        syscalls.move_mount(tree, found, path=device.path)
    finally:
        os.close(found)
        os.close(tree)
