# SPDX-License-Identifier: Apache-2.0
"""The mounts of the configuration: made detached (fsopen, open_tree), given their attributes, attached."""

from __future__ import annotations

import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.mounts import bind_tree, new_filesystem, open_source
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.launch.operations.lowering import text
from ringfence_runtime.launch.paths import RESOLVE, check_magic, ensure, open_in_root, parent_of, try_open
from ringfence_runtime.spec.mounts import Mount, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypedDict

    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering
    from ringfence_runtime.launch.program import Slot

    class Change(TypedDict, total=False):
        """The arguments of one mount_setattr."""

        attr_set: int
        attr_clr: int
        propagation: int
        recursive: bool


__all__ = [
    "Bind",
    "MountOperation",
    "NewFilesystem",
    "SealMounts",
    "attach",
    "attribute_changes",
    "bind_directory",
    "is_read_only_device",
    "lower_attach",
    "propagate",
]

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
# CVE-2019-19921, CVE-2023-27561: an image with /proc as a symlink diverted the mount of procfs.
_NEEDS_REAL_DIRECTORY = frozenset(("proc", "sysfs"))
_MODE_TEXT = 8
#: the mode of a tmpfs that covers no directory: the kernel's own default
TMPFS_MODE = 0o1777


def attribute_changes(mount: Mount) -> list[Change]:
    """The attributes that the options of a bind mount ask for."""
    changes: list[Change] = []
    if mount.attr_set or mount.attr_clr:
        changes.append({"attr_set": mount.attr_set, "attr_clr": mount.attr_clr})
    return changes + _recursive_changes(mount)


def _recursive_changes(mount: Mount, without: int = 0) -> list[Change]:
    on = mount.rattr_set & ~without
    if on or mount.rattr_clr:
        return [{"attr_set": on, "attr_clr": mount.rattr_clr, "recursive": True}]
    return []


def _propagation_changes(mount: Mount) -> list[Change]:
    """The propagation that the options ask for; it is set after the mount is attached."""
    changes: list[Change] = []
    if mount.rpropagation:
        changes.append({"propagation": mount.rpropagation, "recursive": True})
    if mount.propagation:
        changes.append({"propagation": mount.propagation})
    return changes


def propagate(mount: Mount, tree: int) -> None:
    """Sets the propagation of a mount that is attached."""
    for change in _propagation_changes(mount):
        syscalls.mount_setattr(tree, **change, path=mount.destination)


def bind_directory(directory: str, mount: Mount) -> int:
    """A detached copy of a directory of the host, with the attributes of the mount."""
    tree = syscalls.open_tree(syscalls.AT_FDCWD, directory, syscalls.OPEN_TREE_CLONE)
    for change in attribute_changes(mount):
        syscalls.mount_setattr(tree, **change, path=mount.destination)
    return tree


def _may_cover(mount: Mount) -> bool:
    """Returns True if it may cover a part of a procfs: all of it, or a file that describes the machine, as
    lxcfs does.
    """
    name = "/" + "/".join(part for part in mount.destination.split("/") if part not in ("", "."))
    return name == "/proc" or name in _PROC_FILES


def _follows(mount: Mount) -> bool:
    """Returns True if symlinks of the image may lead to the mount point."""
    return mount.type not in _NEEDS_REAL_DIRECTORY


def takes_mode(mount: Mount) -> bool:
    """Returns True for a tmpfs that gets the mode of the directory which it covers."""
    return mount.type == "tmpfs" and all(key != "mode" for key, _ in words(mount))


def is_read_only_device(mount: Mount) -> bool:
    """Returns True for a block device that must not even be written by its filesystem."""
    return bool(mount.attr_set & syscalls.MOUNT_ATTR_RDONLY) and mount.source.startswith("/")


def _point_mode(mount: Mount) -> int:
    """The mode of a mount point that has to be created.

    A tmpfs without a mode is writable for all users, as one that the kernel mounts. Its mount point stays in
    the root filesystem, so it has the same mode at the next start.
    """
    return TMPFS_MODE if takes_mode(mount) else 0o755


def attach(root: int, mount: Mount, tree: int) -> None:
    """Attaches `tree` at the destination below `root`, which is created if it is missing."""
    directory, follow = stat.S_ISDIR(os.fstat(tree).st_mode), _follows(mount)
    if mount.dest_nofollow:
        found = _open_last(root, mount.destination, directory=directory)
    else:
        mode = _point_mode(mount)
        found = ensure(root, mount.destination, directory=directory, mode=mode, follow=follow)
    try:
        if not follow and stat.S_ISLNK(os.fstat(found).st_mode):
            raise Error(f"{mount.path}: {mount.destination} is a symlink in the root filesystem")
        # The filesystem decides what a procfs is, not the path.
        if not _may_cover(mount) and syscalls.fs_magic(found) == syscalls.PROC_SUPER_MAGIC:
            raise Error(f"{mount.path}: {mount.destination} lies in a procfs and must not be covered")
        if stat.S_ISDIR(os.fstat(found).st_mode) != directory:
            raise Error(_unlike(mount, directory=directory))
        syscalls.move_mount(tree, found, path=mount.destination)
    finally:
        os.close(found)
    propagate(mount, tree)


def _unlike(mount: Mount, *, directory: bool) -> str:
    """The error of a file over a directory, or a directory over a file, which the kernel calls EINVAL."""
    kinds = ("a directory", "not a directory") if directory else ("not a directory", "a directory")
    what = f"the source {mount.source}" if mount.bind else f"a {mount.type}"
    return f"{mount.path}: {what} is {kinds[0]}, but {mount.destination} in the container is {kinds[1]}"


def lower_attach(target: Lowering, mount: Mount, tree: Slot, *, directory: bool) -> None:
    """As `attach`; the `ensure` of the native init refuses a symlink itself."""
    mode = _point_mode(mount)
    found = target.ensure(mount.destination, directory=directory, mode=mode, follow=_follows(mount))
    if not _may_cover(mount):
        target.program.add("check_not_magic", found, syscalls.PROC_SUPER_MAGIC)
    target.move(tree, found)
    for change in _propagation_changes(mount):
        target.set_attributes(tree, **change)


def _open_last(root: int, path: str, *, directory: bool) -> int:
    """`dest-nofollow`: opens the last name itself. If it is a symlink, the mount covers the symlink."""
    parent, name = parent_of(root, path)
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return ensure(parent, name, directory=directory, follow=False)
    finally:
        os.close(parent)


class MountOperation(Operation):
    """Attaches one mount of the configuration.

    `apart`: its own propagation is set again after that of the root (`SetPropagationAgain`).
    """

    mount: Mount
    apart: bool
    copies_links = True  # whether `copy-symlink` means anything

    def describe(self) -> str:
        return f"attach {self.mount.type or 'bind'} at {self.mount.destination}"

    def make(self, world: World) -> int:
        """A detached mount with its attributes."""
        raise NotImplementedError

    def execute(self, world: World) -> None:
        mount = self.mount
        try:
            if not (self.copies_links and mount.copy_symlink and _copy_link(world.root, mount)):
                self._place(world, self.make(world))
        except OSError as error:
            raise Error(f"{mount.path}: cannot mount at {mount.destination}: {error.strerror}") from None

    def _place(self, world: World, tree: int) -> None:
        mount = self.mount
        if mount.destination.strip("/") == "":
            return _cover_root(world, mount, tree)
        if mount.copy_up:
            _copy_up(world.root, mount, tree)
        attach(world.root, mount, tree)
        if self.apart:
            world.apart.append((mount, os.dup(tree)))
        if self._is_devpts():
            world.devpts = tree
        else:
            os.close(tree)
        return None

    def _is_devpts(self) -> bool:
        """Returns True for the devpts from which terminals are opened."""
        return self.mount.type == "devpts" and self.mount.destination.rstrip("/") == "/dev/pts"

    def check_lowerable(self) -> None:
        """Raises NotLowerableError for options that only Python implements."""
        mount = self.mount
        covers_root = mount.destination.strip("/") == ""
        if mount.copy_up or mount.copy_symlink or mount.dest_nofollow or covers_root or self.apart:
            raise NotLowerableError(self.describe())

    def lower_place(self, target: Lowering, tree: Slot, *, directory: bool) -> None:
        """As `_place`."""
        lower_attach(target, self.mount, tree, directory=directory)
        if self._is_devpts():
            target.devpts = tree


class Bind(MountOperation):
    """Attaches a file or directory of the host.

    `propagation`: what `rootfsPropagation` gives to a tree before it is attached; 0: nothing.
    `inner`: the source is this path of the container, on a mount that was attached before; else empty.
    """

    index: int
    bundle: str
    propagation: int
    inner: str

    def make(self, world: World) -> int:
        tree = world.mount_fds.pop(self.index, -1)
        if tree < 0:
            tree = self._open_inner(world) if self.inner else open_source(self.mount, self.bundle)
        for change in self._changes():
            syscalls.mount_setattr(tree, **change, path=self.mount.destination)
        return tree

    def _open_inner(self, world: World) -> int:
        try:
            found = open_in_root(world.root, self.inner, follow=not self.mount.src_nofollow)
        except OSError as error:
            path, source = self.mount.path, self.mount.source
            why = os.strerror(error.errno or 0)
            raise Error(f"{path}: cannot open the source {source}: {why}") from None
        try:
            return bind_tree(found, recursive=self.mount.recursive)
        finally:
            os.close(found)

    def _changes(self) -> list[Change]:
        mount = self.mount
        first: list[Change] = []
        if self.propagation and not mount.own_propagation:
            first = [{"propagation": self.propagation, "recursive": True}]
        return first + attribute_changes(mount)

    def lower(self, target: Lowering) -> None:
        self.check_lowerable()
        if self.index not in target.kinds:
            raise NotLowerableError(f"{self.describe()}, whose source the init itself opens")
        tree = target.program.fd(f"mount {self.index}")
        for change in self._changes():
            target.set_attributes(tree, **change)
        self.lower_place(target, tree, directory=target.kinds[self.index])


class NewFilesystem(MountOperation):
    """Attaches a new instance of a filesystem. A tmpfs without a mode gets that of the directory it covers,
    or 1777 if there is none.

    `label`: the SELinux context of its files. `copies_sysfs`: a sysfs that cannot be mounted is copied from
    the host: it belongs to a network namespace, and that of the container is not its own. `sealed_later`:
    `SealMounts` makes it read-only.
    """

    label: str
    copies_sysfs: bool
    sealed_later: bool

    def _attributes(self) -> int:
        return self.mount.attr_set & ~self._left_out()

    def _left_out(self) -> int:
        return syscalls.MOUNT_ATTR_RDONLY if self.sealed_later else 0

    def make(self, world: World) -> int:
        mount = self.mount
        options = self._options(self._existing_mode(world.root) if takes_mode(mount) else "")
        try:
            tree = new_filesystem(mount.type, mount.source or mount.type, options, self._attributes())
        except OSError as error:
            if mount.type == "sysfs" and self.copies_sysfs:
                return self._copy_sysfs()
            raise Error(
                f"{mount.path}: cannot mount {mount.type} at {mount.destination}: {error.strerror}"
            ) from None
        for change in _recursive_changes(mount, self._left_out()):
            syscalls.mount_setattr(tree, **change)
        if self.sealed_later:
            world.sealed.append((mount, os.dup(tree)))
        return tree

    def lower(self, target: Lowering) -> None:
        self.check_lowerable()
        mount, program = self.mount, target.program
        if is_read_only_device(self.mount) or self.label:
            raise NotLowerableError(f"{self.describe()}, a block device or with an SELinux label")
        options: list[tuple[str, str | Slot | None]] = [("source", mount.source or mount.type)]
        options += words(mount)
        if takes_mode(mount):
            mode = program.at(program.data(bytes(_MODE_TEXT), own=True))
            program.add("existing_mode", target.root, text(mount.destination), RESOLVE, mode)
            options.append(("mode", mode))
        tree = target.filesystem(mount.type, options, self._attributes())
        for change in _recursive_changes(mount, self._left_out()):
            target.set_attributes(tree, **change)
        if self.sealed_later:
            target.sealed.append(tree)
        self.lower_place(target, tree, directory=True)

    def _options(self, mode: str) -> Sequence[tuple[str, str | None]]:
        options = list(words(self.mount))
        if mode:
            options.append(("mode", mode))
        if self.label and self.mount.type not in _LABELLED_BY_THE_KERNEL:
            options.append(("context", self.label))
        if is_read_only_device(self.mount):
            options.append(("ro", None))  # the superblock of a block device must not be written either
        return options

    def _existing_mode(self, root: int) -> str:
        found = try_open(root, self.mount.destination)
        if found is None:
            return f"{TMPFS_MODE:o}"
        mode = os.fstat(found).st_mode & 0o7777
        os.close(found)
        return f"{mode:o}"

    def _copy_sysfs(self) -> int:
        mount = self.mount
        tree = syscalls.open_tree(syscalls.AT_FDCWD, "/sys", syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
        check_magic(tree, syscalls.SYSFS_MAGIC, "/sys")
        syscalls.mount_setattr(tree, attr_set=mount.attr_set, attr_clr=mount.attr_clr, recursive=True)
        return tree


class SealMounts(Operation):
    """Makes the new filesystems read-only on which the launch had to create something."""

    def describe(self) -> str:
        return "make mounts read-only that others lie below"

    def execute(self, world: World) -> None:
        for mount, tree in world.sealed:
            syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, path=mount.destination)
            os.close(tree)

    def lower(self, target: Lowering) -> None:
        for tree in target.sealed:
            target.set_attributes(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY)


def _cover_root(world: World, mount: Mount, tree: int) -> None:
    """A mount at / covers the root filesystem and becomes the root."""
    if mount.copy_up:
        raise Error(f"{mount.path}: tmpcopyup of the root filesystem itself is not possible")
    syscalls.move_mount(tree, world.root, path="/")
    propagate(mount, tree)
    os.close(world.root)
    world.root = tree


def _copy_link(root: int, mount: Mount) -> bool:
    """`copy-symlink`: if the source is a symlink, creates a symlink with the same text and returns True."""
    try:
        link = os.readlink(mount.source)
    except OSError:
        return False
    directory, name = parent_of(root, mount.destination)
    try:
        os.symlink(link, name, dir_fd=directory)
    except FileExistsError:
        if os.readlink(name, dir_fd=directory) != link:
            raise
    finally:
        os.close(directory)
    return True


def _copy_up(root: int, mount: Mount, tree: int) -> None:
    """`tmpcopyup`: fills a new tmpfs with the image's files at its destination. No symlink is followed."""
    try:
        source = open_in_root(root, mount.destination, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    from ringfence_runtime.launch.copytree import copy_directory  # rarely used

    into = syscalls.openat2(tree, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=syscalls.RESOLVE_BENEATH)
    try:
        copy_directory(source, into)
    finally:
        os.close(source)
        os.close(into)
