# SPDX-License-Identifier: Apache-2.0
"""Mount a prepared root filesystem: as a detached mount, so that nothing shows before its place.

Options: index=off, metacopy=off, redirect_dir=off. A layer cannot hold overlayfs's attributes (the
unpacker drops them) and a container cannot set them, and with these options the kernel would
not obey them either.
"""

from __future__ import annotations

import errno
import os

from ringfence_runtime import _sys
from ringfence_runtime.images.errors import StoreError, store_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.images.rootfs import Rootfs

__all__ = ["mount_rootfs", "open_rootfs"]

_OPTIONS = (("index", "off"), ("metacopy", "off"), ("redirect_dir", "off"))
_FSCONFIG_LIMIT = 255


def open_rootfs(rootfs: Rootfs) -> int:
    """A descriptor of the detached, private mount: move_mount(2) attaches it; until then it dies with its fd.

    Devices of the root filesystem are dead (nodev) unless its layers were imported with devices.
    """
    attributes = 0 if rootfs.devices else _sys.MOUNT_ATTR_NODEV
    if rootfs.read_only:
        attributes |= _sys.MOUNT_ATTR_RDONLY
    try:
        if rootfs.kind == "overlay":
            fd = _overlay(rootfs)
        else:
            fd = _sys.open_tree(_sys.AT_FDCWD, rootfs.path, _sys.OPEN_TREE_CLONE)
        _sys.mount_setattr(fd, attr_set=attributes, propagation=_sys.MS_PRIVATE, path=rootfs.merged)
    except OSError as error:
        hint = ""
        if error.errno == errno.EINVAL and rootfs.kind == "overlay":
            hint = (
                "an overlay cannot hold the upper directory of another: the store needs ext4, xfs or the like"
            )
        raise StoreError(store_error("mounting the root filesystem", error).message, hint=hint) from None
    return fd


def mount_rootfs(rootfs: Rootfs, target: str) -> None:
    """Attach it at the directory `target` of the current mount namespace."""
    fd = open_rootfs(rootfs)
    try:
        where = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sys.move_mount(fd, where, path=target)
        finally:
            os.close(where)
    except OSError as error:
        raise store_error("mounting the root filesystem", error) from None
    finally:
        os.close(fd)


def _overlay(rootfs: Rootfs) -> int:
    if max(map(len, (*rootfs.lower, rootfs.upper, rootfs.work))) <= _FSCONFIG_LIMIT:
        try:
            return _overlay_by_parts(rootfs)
        except OSError as error:
            # lowerdir+ came with 6.7 (commit 24e16e385f22, ovl: add support for appending lowerdirs one by
            # one).
            if error.errno != errno.EINVAL:
                raise
    return _overlay_by_mount(rootfs)


def _overlay_by_parts(rootfs: Rootfs) -> int:
    context = _sys.fsopen("overlay")
    try:
        for path in rootfs.lower:
            _sys.fsconfig_string(context, "lowerdir+", path)
        _sys.fsconfig_string(context, "upperdir", rootfs.upper)
        _sys.fsconfig_string(context, "workdir", rootfs.work)
        for key, value in _OPTIONS:
            _sys.fsconfig_string(context, key, value)
        if rootfs.userxattr:
            _sys.fsconfig_flag(context, "userxattr")
        _sys.fsconfig_create(context)
        return _sys.fsmount(context, 0)
    finally:
        os.close(context)


def _overlay_by_mount(rootfs: Rootfs) -> int:
    """mount(2) takes one page of options: so paths go as /proc/self/fd/N, which need no escaping either."""
    fds: list[int] = []

    def short(path: str) -> str:
        fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{fds[-1]}"

    try:
        lower = ":".join([short(path) for path in rootfs.lower])
        options = [f"lowerdir={lower}", f"upperdir={short(rootfs.upper)}", f"workdir={short(rootfs.work)}"]
        options += [f"{key}={value}" for key, value in _OPTIONS]
        if rootfs.userxattr:
            options.append("userxattr")
        _sys.mount("ringfence", rootfs.merged, "overlay", 0, ",".join(options))
    finally:
        for fd in fds:
            os.close(fd)
    try:
        return _sys.open_tree(_sys.AT_FDCWD, rootfs.merged, _sys.OPEN_TREE_CLONE)
    finally:
        _sys.umount2(rootfs.merged, _sys.MNT_DETACH)
