# SPDX-License-Identifier: Apache-2.0
"""Mounts by descriptor: made detached (fsopen, open_tree), given their attributes, then attached to a
descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.paths import check_device, ensure, open_in_root, parent_of, try_open
from ringfence_runtime.spec.mounts import Mount, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["attach", "bind_tree", "mask", "new_filesystem", "open_source", "propagate", "readonly"]

_PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "net/dev",
    ]
)
_LABELLED_BY_THE_KERNEL = frozenset(("proc", "sysfs", "mqueue"))
NEEDS_REAL_DIRECTORY = frozenset(("proc", "sysfs"))
HARD = (
    syscalls.MOUNT_ATTR_RDONLY
    | syscalls.MOUNT_ATTR_NOSUID
    | syscalls.MOUNT_ATTR_NODEV
    | syscalls.MOUNT_ATTR_NOEXEC
)


def open_source(mount: Mount, bundle: str, *, idmap_userns: int = -1) -> int:
    """A detached copy of a bind mount's source. It receives from the host but sends nothing to it, unless
    asked.
    """
    source = mount.source if mount.source.startswith("/") else f"{bundle}/{mount.source}"
    flags = syscalls.OPEN_TREE_CLONE | (syscalls.AT_RECURSIVE if mount.recursive else 0)
    if mount.src_nofollow:
        flags |= syscalls.AT_SYMLINK_NOFOLLOW
    try:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    except OSError as error:
        if error.errno == errno.EINVAL and not mount.recursive:
            # A source with locked submounts (made by another user namespace) can only be copied whole.
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


def attributes(mount: Mount, tree: int) -> None:
    """Give the detached mount the attributes that its options ask for."""
    if mount.attr_set or mount.attr_clr:
        syscalls.mount_setattr(tree, attr_set=mount.attr_set, attr_clr=mount.attr_clr, path=mount.destination)
    if mount.rattr_set or mount.rattr_clr:
        syscalls.mount_setattr(
            tree, attr_set=mount.rattr_set, attr_clr=mount.rattr_clr, recursive=True, path=mount.destination
        )


def propagate(mount: Mount, tree: int) -> None:
    """Give the mount its propagation, once it is attached."""
    if mount.rpropagation:
        syscalls.mount_setattr(tree, propagation=mount.rpropagation, recursive=True, path=mount.destination)
    if mount.propagation:
        syscalls.mount_setattr(tree, propagation=mount.propagation, path=mount.destination)


def attach(root: int, mount: Mount, tree: int) -> None:
    """Attach `tree` at the mount's destination below `root`, which is made where it is missing."""
    directory = stat.S_ISDIR(os.fstat(tree).st_mode)
    # CVE-2019-19921, CVE-2023-27561: an image with /proc as a symlink moved the real procfs out of the way.
    follow = mount.type not in NEEDS_REAL_DIRECTORY
    if mount.dest_nofollow:
        target = _open_last(root, mount.destination, directory=directory)
    else:
        target = ensure(root, mount.destination, directory=directory, follow=follow)
    try:
        if not follow and stat.S_ISLNK(os.fstat(target).st_mode):
            raise Error(f"{mount.path}: {mount.destination} is a symlink in the root filesystem")
        _check_procfs(target, mount)
        syscalls.move_mount(tree, target, path=mount.destination)
    finally:
        os.close(target)
    propagate(mount, tree)


def may_cover(mount: Mount) -> bool:
    """Whether it may lie over something of a procfs: only over files that describe the machine, as lxcfs
    does, or over all of it.
    """
    name = "/" + "/".join(part for part in mount.destination.split("/") if part not in ("", "."))
    return name == "/proc" or name in _PROC_FILES


def _check_procfs(target: int, mount: Mount) -> None:
    """A procfs is what the kernel says, whatever the path."""
    if syscalls.fs_magic(target) == syscalls.PROC_SUPER_MAGIC and not may_cover(mount):
        raise Error(f"{mount.path}: {mount.destination} lies in a procfs and must not be covered")


def _open_last(root: int, path: str, *, directory: bool) -> int:
    """`dest-nofollow`: the last name itself, be it a symlink, which is then covered by the mount."""
    parent, name = parent_of(root, path)
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return ensure(parent, name, directory=directory, follow=False)
    finally:
        os.close(parent)


def _messages(context: int) -> str:
    """What the kernel has to say about a failed filesystem context (it answers reads on the descriptor)."""
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


def existing_mode(root: int, mount: Mount) -> tuple[tuple[str, str | None], ...]:
    """A tmpfs without a mode of its own takes the mode of the directory that it covers."""
    if any(option.startswith("mode=") for option in mount.data):
        return ()
    target = try_open(root, mount.destination)
    if target is None:
        return (("mode", "755"),)
    mode = os.fstat(target).st_mode & 0o7777
    os.close(target)
    return (("mode", f"{mode:o}"),)


def copy_link(root: int, mount: Mount) -> bool:
    """`copy-symlink`: where the source is a symlink, the container gets a link of the same text."""
    try:
        text = os.readlink(mount.source)
    except OSError:
        return False
    directory, name = parent_of(root, mount.destination)
    try:
        os.symlink(text, name, dir_fd=directory)
    except FileExistsError:
        if os.readlink(name, dir_fd=directory) != text:
            raise
    finally:
        os.close(directory)
    return True


def filesystem(mount: Mount, more: tuple[tuple[str, str | None], ...] = (), label: str = "") -> int:
    """The filesystem of a mount that is neither bind nor cgroup; `label`: SELinux's for its files."""
    options = [*words(mount), *more]
    if label and mount.type not in _LABELLED_BY_THE_KERNEL:
        options.append(("context", label))
    if mount.attr_set & syscalls.MOUNT_ATTR_RDONLY and mount.source.startswith("/"):
        options.append(("ro", None))  # a block device: its superblock must not be written either
    try:
        tree = new_filesystem(mount.type, mount.source or mount.type, options, mount.attr_set)
    except OSError as error:
        raise Error(
            f"{mount.path}: cannot mount {mount.type} at {mount.destination}: {error.strerror}"
        ) from None
    if mount.rattr_set or mount.rattr_clr:
        syscalls.mount_setattr(tree, attr_set=mount.rattr_set, attr_clr=mount.rattr_clr, recursive=True)
    return tree


def bind_tree(fd: int, attr: int = 0, *, recursive: bool = False) -> int:
    """A detached copy of what `fd` is open on, with attributes added."""
    tree = syscalls.open_tree(
        fd,
        "",
        syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH | (syscalls.AT_RECURSIVE if recursive else 0),
    )
    if attr:
        syscalls.mount_setattr(tree, attr_set=attr, recursive=recursive)
    return tree


def mask(root: int, path: str, null: int, label: str = "") -> None:
    """Hide `path`: a directory under an empty read-only tmpfs, anything else under /dev/null; absent is
    fine.
    """
    target = try_open(root, path)
    if target is None:
        return
    try:
        if stat.S_ISDIR(os.fstat(target).st_mode):
            options = [("size", "0"), ("nr_inodes", "1"), ("mode", "0")]
            if label:
                options.append(("context", label))
            tree = new_filesystem("tmpfs", "tmpfs", options, HARD)
        else:
            check_device(null, 1, 3, "/dev/null")
            tree = bind_tree(null, syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC)
        try:
            syscalls.move_mount(tree, target, path=path)
        finally:
            os.close(tree)
    finally:
        os.close(target)


def readonly(root: int, path: str) -> None:
    """Make `path` and all that is mounted below it read-only; absent is fine."""
    target = try_open(root, path)
    if target is None:
        return
    try:
        tree = bind_tree(target, recursive=True)
        try:
            syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, recursive=True, path=path)
            syscalls.move_mount(tree, target, path=path)
        finally:
            os.close(tree)
    finally:
        os.close(target)


def copy_up(root: int, mount: Mount, tree: int) -> None:
    """`tmpcopyup`: fill a new tmpfs with what the image has at its destination, never following a symlink."""
    try:
        source = open_in_root(root, mount.destination, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    from ringfence_runtime.launch.copytree import copy_directory  # rarely used

    target = syscalls.openat2(tree, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=syscalls.RESOLVE_BENEATH)
    try:
        copy_directory(source, target)
    finally:
        os.close(source)
        os.close(target)
