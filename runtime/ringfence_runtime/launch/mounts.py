# SPDX-License-Identifier: Apache-2.0
"""Detached mounts: copies of trees of the host (open_tree) and new filesystems (fsopen)."""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence_runtime.spec.mounts import Mount

__all__ = ["HARD", "bind_tree", "new_filesystem", "open_rootfs", "open_source"]

HARD = (
    syscalls.MOUNT_ATTR_RDONLY
    | syscalls.MOUNT_ATTR_NOSUID
    | syscalls.MOUNT_ATTR_NODEV
    | syscalls.MOUNT_ATTR_NOEXEC
)


def open_rootfs(path: str) -> int:
    """A detached copy of the root filesystem's tree. It sends no mount event to the host."""
    try:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
    except OSError as error:
        raise Error(f"config: root.path: cannot open {path}: {error.strerror}") from None
    if not stat.S_ISDIR(os.fstat(tree).st_mode):
        raise Error(f"config: root.path: {path} is not a directory")
    return tree


def open_source(mount: Mount, bundle: str, *, idmap_userns: int = -1) -> int:
    """A detached copy of a bind mount's source. It receives mount events of the host, and sends none unless
    `shared` is asked for.
    """
    source = os.path.join(bundle, mount.source)
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if mount.recursive else 0)
    if mount.src_nofollow:
        flags |= syscalls.AT_SYMLINK_NOFOLLOW
    try:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    except OSError as error:
        if error.errno == errno.EINVAL and not mount.recursive:
            # A source with locked submounts (of another user namespace) can only be copied recursively.
            tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags | syscalls.AT_RECURSIVE)
        else:
            raise Error(f"{mount.path}: cannot open the source {source}: {error.strerror}") from None
    if syscalls.MS_SHARED not in (mount.propagation, mount.rpropagation):
        syscalls.mount_setattr(tree, propagation=syscalls.MS_SLAVE, recursive=True, path=source)
    if idmap_userns >= 0:
        _idmap(mount, tree, idmap_userns)
    return tree


def _idmap(mount: Mount, tree: int, userns: int) -> None:
    recursive = mount.idmap.startswith("r")
    try:
        syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns=userns, recursive=recursive)
    except OSError as error:
        raise Error(
            f"{mount.path}: the filesystem of {mount.source} cannot be id-mapped: {error.strerror}"
        ) from None


def _messages(context: int) -> str:
    """The kernel's messages about a failed filesystem context, which reads of the descriptor return."""
    texts: list[str] = []
    while len(texts) < 8:
        try:
            texts.append(os.read(context, 1024).decode(errors="replace").strip()[2:])
        except OSError:
            break
    return "; ".join(texts)


def new_filesystem(fstype: str, source: str, options: Iterable[tuple[str, str | None]], attr: int = 0) -> int:
    """A detached mount of a new filesystem instance."""
    context = -1
    try:
        context = syscalls.fsopen(fstype)
        if source:
            syscalls.fsconfig_string(context, "source", source)
        for key, value in options:
            if value is None:
                syscalls.fsconfig_flag(context, key)
            else:
                syscalls.fsconfig_string(context, key, value)
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, attr)
    except OSError as error:
        said = _messages(context) if context >= 0 else ""
        error.strerror = f"{error.strerror} ({said})" if said else error.strerror
        raise
    finally:
        if context >= 0:
            os.close(context)


def bind_tree(fd: int, attr: int = 0, *, recursive: bool = False) -> int:
    """A detached copy of what `fd` is open on, with attributes added."""
    flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
    tree = syscalls.open_tree(fd, "", flags | (syscalls.AT_RECURSIVE if recursive else 0))
    if attr:
        syscalls.mount_setattr(tree, attr_set=attr, recursive=recursive)
    return tree
