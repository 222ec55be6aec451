# SPDX-License-Identifier: Apache-2.0
"""Mounts a prepared root filesystem as a detached mount, so it is invisible until it is attached.

Options: index=off, metacopy=off, redirect_dir=nofollow. A layer cannot contain overlayfs's attributes
(the unpacker drops them) and a container cannot set them; with these options the kernel would also
ignore them.
"""

from __future__ import annotations

import errno
import os

from ringfence_linux import syscalls
from ringfence_runtime.images.errors import StoreError, store_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.images.rootfs import Rootfs

__all__ = ["MAPPED", "mount_rootfs", "open_rootfs"]

_OPTIONS = (("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"))
_FSCONFIG_LIMIT = 255
MAPPED = "mapped"


def open_rootfs(rootfs: Rootfs, *, userns: int = -1) -> int:
    """Returns a descriptor of the detached, private mount, which move_mount(2) attaches.

    Devices of the root filesystem are dead (nodev) unless its layers were imported with devices. `userns` is
    a descriptor of the container's user namespace: its root then owns what the image's root owns.
    """
    attributes = 0 if rootfs.devices else syscalls.MOUNT_ATTR_NODEV
    if rootfs.read_only:
        attributes |= syscalls.MOUNT_ATTR_RDONLY
    try:
        if rootfs.kind == "overlay":
            with _MappedLayers(rootfs, userns) as lower:
                fd = _overlay(rootfs, lower)
        else:
            fd = syscalls.open_tree(syscalls.AT_FDCWD, rootfs.path, syscalls.OPEN_TREE_CLONE)
            if userns >= 0:
                syscalls.mount_setattr(
                    fd, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns=userns, path=rootfs.path
                )
        syscalls.mount_setattr(fd, attr_set=attributes, propagation=syscalls.MS_PRIVATE, path=rootfs.merged)
    except OSError as error:
        hint = "can the store's filesystem be id-mapped? (ext4, xfs, btrfs can)" if userns >= 0 else ""
        if error.errno == errno.EINVAL and rootfs.kind == "overlay" and not hint:
            hint = (
                "an overlay cannot hold the upper directory of another: the store needs ext4, xfs or the like"
            )
        raise StoreError(store_error("mounting the root filesystem", error).message, hint=hint) from None
    return fd


def mount_rootfs(rootfs: Rootfs, target: str, *, userns: int = -1) -> None:
    """Attaches it at the directory `target` of the current mount namespace."""
    fd = open_rootfs(rootfs, userns=userns)
    try:
        where = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.move_mount(fd, where, path=target)
        finally:
            os.close(where)
    except OSError as error:
        raise store_error("mounting the root filesystem", error) from None
    finally:
        os.close(fd)


class _MappedLayers:
    """The lower directories as the container's user namespace sees them (overlayfs on idmapped mounts: 5.19).

    The layers stay as they are on disk and shared. overlayfs takes paths, so each mapped mount has a place in
    the container's own directory until the overlay has cloned it. The upper directory is not mapped: it
    belongs to the container's root from the start (overlayfs makes its work directories as the host's root).
    """

    __slots__ = ("_lower", "_places", "_rootfs", "_userns")

    def __init__(self, rootfs: Rootfs, userns: int) -> None:
        self._rootfs = rootfs
        self._userns = userns
        self._places: list[str] = []

    def __enter__(self) -> tuple[str, ...]:
        if self._userns < 0:
            return self._rootfs.lower
        try:
            lower = tuple(self._map(path, number) for number, path in enumerate(self._rootfs.lower))
            status = os.stat(lower[0])
            os.chown(self._rootfs.upper, status.st_uid, status.st_gid)
        except BaseException:
            self.__exit__()
            raise
        return lower

    def __exit__(self, *_: object) -> None:
        for place in self._places:
            syscalls.umount2(place, syscalls.MNT_DETACH)

    def _map(self, path: str, number: int) -> str:
        place = f"{os.path.dirname(self._rootfs.merged)}/{MAPPED}/{number}"
        os.makedirs(place, 0o700, exist_ok=True)
        tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
        try:
            attributes = syscalls.MOUNT_ATTR_IDMAP | syscalls.MOUNT_ATTR_RDONLY
            syscalls.mount_setattr(tree, attr_set=attributes, userns=self._userns, path=path)
            where = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.move_mount(tree, where, path=place)
                self._places.append(place)
            finally:
                os.close(where)
        finally:
            os.close(tree)
        return place


def _overlay(rootfs: Rootfs, lower: tuple[str, ...]) -> int:
    if max(map(len, (*lower, rootfs.upper, rootfs.work))) <= _FSCONFIG_LIMIT:
        try:
            return _overlay_by_parts(rootfs, lower)
        except OSError as error:
            # Older kernels (6.1) support neither lowerdir+ nor overlayfs's other options in this form.
            if error.errno != errno.EINVAL:
                raise
    return _overlay_by_mount(rootfs, lower)


def _overlay_by_parts(rootfs: Rootfs, lower: tuple[str, ...]) -> int:
    context = syscalls.fsopen("overlay")
    try:
        for path in lower:
            syscalls.fsconfig_string(context, "lowerdir+", path)
        syscalls.fsconfig_string(context, "upperdir", rootfs.upper)
        syscalls.fsconfig_string(context, "workdir", rootfs.work)
        for key, value in _OPTIONS:
            syscalls.fsconfig_string(context, key, value)
        if rootfs.userxattr:
            syscalls.fsconfig_flag(context, "userxattr")
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, 0)
    finally:
        os.close(context)


def _overlay_by_mount(rootfs: Rootfs, lower: tuple[str, ...]) -> int:
    """Uses paths /proc/self/fd/N: mount(2) accepts one page of options, and these need no escaping."""
    fds: list[int] = []

    def short(path: str) -> str:
        fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{fds[-1]}"

    try:
        layers = ":".join([short(path) for path in lower])
        options = [f"lowerdir={layers}", f"upperdir={short(rootfs.upper)}", f"workdir={short(rootfs.work)}"]
        options += [f"{key}={value}" for key, value in _OPTIONS]
        if rootfs.userxattr:
            options.append("userxattr")
        syscalls.mount("ringfence", rootfs.merged, "overlay", 0, ",".join(options))
    finally:
        for fd in fds:
            os.close(fd)
    try:
        return syscalls.open_tree(syscalls.AT_FDCWD, rootfs.merged, syscalls.OPEN_TREE_CLONE)
    finally:
        syscalls.umount2(rootfs.merged, syscalls.MNT_DETACH)
