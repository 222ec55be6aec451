# SPDX-License-Identifier: Apache-2.0
"""/dev of the container: nodes, the usual links, and nothing outside the root filesystem touched on the way.

runc CVE-2026-41579 and crun CVE-2026-47766 came from an image whose /dev is a symlink: here every name is
resolved below the root and made relative to a directory's descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.mounts import bind_tree, new_filesystem
from ringfence_runtime.launch.paths import check_device, ensure, open_in_root, parent_of
from ringfence_runtime.spec.linux import DEVICE_TYPES, Device
from ringfence_runtime.spec.node import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringfence_runtime.launch.rootfs import Rootfs
    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.mounts import IdMapping

__all__ = ["LINKS", "default_devices", "make_devices", "precreate"]

_DEFAULT = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)
LINKS = (
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
)


def default_devices() -> list[Device]:
    """Those that every container has."""
    return [
        Device(
            Node({"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor}, "(default device)")
        )
        for name, major, minor in _DEFAULT
    ]


def make_devices(rootfs: Rootfs) -> None:
    """The configuration's devices and the default ones. In a /dev that is bound from the host nothing is
    made: what the configuration names must be there.
    """
    config = rootfs.plan.config
    bound = any(mount.bind and mount.destination.rstrip("/") == "/dev" for mount in config.mounts)
    wanted = {} if bound else {device.path: device for device in default_devices()}
    wanted.update({device.path: device for device in config.linux.devices})
    mapped = "user" in config.linux.namespaces
    for device in wanted.values():
        try:
            if bound and device.path.startswith("/dev/"):
                _find(rootfs, device)
            else:
                _make(rootfs, device, bind=mapped)
        except OSError as error:
            raise Error(f"cannot make the device {device.path}: {error.strerror}") from None
    if not bound:
        _links(rootfs)


def _find(rootfs: Rootfs, device: Device) -> None:
    directory, _, name = device.path.rstrip("/").rpartition("/")
    fd = open_in_root(rootfs.fd, directory)
    try:
        _existing(fd, name, device)
    finally:
        os.close(fd)


def _make(rootfs: Rootfs, device: Device, *, bind: bool) -> None:
    if device.path.rstrip("/") == "/dev/ptmx" and rootfs.devpts >= 0:
        return None  # a link into the container's own devpts; a node would reach the host's
    directory, name = parent_of(rootfs.fd, device.path, follow=False)
    try:
        made = rootfs.plan.device_fds.pop(device.path, -1)
        if made >= 0:
            return _attach(directory, name, device, made)
        if bind:
            return _bind(directory, name, device)
        kind = DEVICE_TYPES[device.type]
        try:
            os.mknod(name, kind | device.mode, os.makedev(device.major, device.minor), dir_fd=directory)
        except FileExistsError:
            return _existing(directory, name, device)
        except PermissionError:
            return _bind(directory, name, device)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            _own(fd, device)
        finally:
            os.close(fd)
    finally:
        os.close(directory)


def _own(fd: int, device: Device) -> None:
    """The node's owner, by its descriptor: the name may lead elsewhere by now. Its mode came with mknod."""
    syscalls.fchownat_empty(fd, device.uid, device.gid)


def _existing(directory: int, name: str, device: Device) -> None:
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
    """In a user namespace no node can be made, so the host's own is bound, once it is known to be the right
    one.
    """
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
    target = ensure(directory, name, directory=False, follow=False)
    try:
        syscalls.move_mount(tree, target, path=device.path)
    finally:
        os.close(target)
        os.close(tree)


def precreate(config: Config) -> dict[str, int]:
    """Detached mounts of nodes that the configuration names, made with the host's rights for a user
    namespace.

    They lie on a tmpfs that is mounted nowhere. A kernel before 6.15 cannot copy out of a detached mount;
    then the host's own node of that name is bound, if it is the right device.
    """
    store = new_filesystem("tmpfs", "tmpfs", (("mode", "700"),))
    made: dict[str, int] = {}
    try:
        for index, device in enumerate(config.linux.devices):
            if device.type == "p":
                continue
            os.mknod(
                str(index), DEVICE_TYPES[device.type], os.makedev(device.major, device.minor), dir_fd=store
            )
            fd = os.open(str(index), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store)
            try:
                os.chmod(str(index), device.mode, dir_fd=store)
                uid, gid = (
                    _mapped(config.linux.uid_map, device.uid),
                    _mapped(config.linux.gid_map, device.gid),
                )
                syscalls.fchownat_empty(fd, uid, gid)
                made[device.path] = bind_tree(fd, syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return made
            finally:
                os.close(fd)
    finally:
        os.close(store)
    return made


def _mapped(ranges: Sequence[IdMapping], number: int) -> int:
    """The host's id of a container's; one that is not mapped stays the overflow id inside."""
    for item in ranges:
        if item.container <= number < item.container + item.size:
            return item.host + number - item.container
    return 65534


def _links(rootfs: Rootfs) -> None:
    dev = ensure(rootfs.fd, "/dev", directory=True, follow=False)
    try:
        for target, name in LINKS:
            try:
                os.symlink(target, name, dir_fd=dev)
            except FileExistsError:
                continue
        if rootfs.devpts >= 0:
            _link_ptmx(dev)
    finally:
        os.close(dev)


def _link_ptmx(dev: int) -> None:
    try:
        os.unlink("ptmx", dir_fd=dev)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EISDIR, errno.EROFS):
            return
        raise
    os.symlink("pts/ptmx", "ptmx", dir_fd=dev)
