# SPDX-License-Identifier: Apache-2.0
"""A mount of type `cgroup`: the container's view of its own cgroup, on hosts of either version."""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime.cgroup.hierarchy import detect
from ringfence_runtime.launch import mounts
from ringfence_runtime.launch.paths import ensure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.rootfs import Rootfs
    from ringfence_runtime.spec.mounts import Mount

__all__ = ["mount_cgroup"]


def mount_cgroup(rootfs: Rootfs, mount: Mount) -> None:
    """Mount it where the configuration says."""
    group = rootfs.cgroup
    own_namespace = "cgroup" in rootfs.plan.config.linux.namespaces
    if group.is_v2 or mount.type == "cgroup2" or (not group.dirs and not detect().v1):
        tree = _unified(rootfs, mount, own_namespace=own_namespace)
        mounts.attach(rootfs.fd, mount, tree)
        os.close(tree)
        return
    _legacy(rootfs, mount, own_namespace=own_namespace)


def _unified(rootfs: Rootfs, mount: Mount, *, own_namespace: bool) -> int:
    if own_namespace:
        try:
            return mounts.new_filesystem("cgroup2", "cgroup2", (), mount.attr_set)
        except OSError:
            pass  # in a user namespace without a cgroup namespace of its own: the host's directory is bound
    return _bind(rootfs.cgroup.unified or "/sys/fs/cgroup", mount)


def _bind(directory: str, mount: Mount) -> int:
    tree = syscalls.open_tree(syscalls.AT_FDCWD, directory, syscalls.OPEN_TREE_CLONE)
    mounts.attributes(mount, tree)
    return tree


def _legacy(rootfs: Rootfs, mount: Mount, *, own_namespace: bool) -> None:
    """A tmpfs with one directory a hierarchy, and a link for each controller that shares its hierarchy."""
    hard = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
    base = mounts.new_filesystem("tmpfs", "tmpfs", (("mode", "755"),), hard)
    mounts.attach(rootfs.fd, mount, base)
    for key, directory in rootfs.cgroup.dirs.items():
        name = os.path.basename(directory[: -len(rootfs.cgroup.path)]) if key else "unified"
        tree = _hierarchy(key, directory, mount, own_namespace=own_namespace)
        target = ensure(base, name, directory=True)
        syscalls.move_mount(tree, target, path=name)
        os.close(tree)
        os.close(target)
        for controller in key.split(","):
            if key != controller and controller != name:
                os.symlink(name, controller, dir_fd=base)
    if mount.attr_set & syscalls.MOUNT_ATTR_RDONLY:
        syscalls.mount_setattr(base, attr_set=syscalls.MOUNT_ATTR_RDONLY, path=mount.destination)
    os.close(base)


def _hierarchy(key: str, directory: str, mount: Mount, *, own_namespace: bool) -> int:
    if not own_namespace:
        return _bind(directory, mount)
    if not key:
        return mounts.new_filesystem("cgroup2", "cgroup2", (), mount.attr_set)
    options: list[tuple[str, str | None]] = []
    for word in key.split(","):
        name, equals, value = word.partition("=")
        options += [("none", None), (name, value)] if equals else [(name, None)]
    return mounts.new_filesystem("cgroup", "cgroup", options, mount.attr_set)
