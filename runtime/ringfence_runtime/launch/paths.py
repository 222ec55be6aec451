# SPDX-License-Identifier: Apache-2.0
"""Paths of the container, resolved below its root only.

The image chooses every name in the tree, and another container may change a shared tree at any moment.
No function here returns a path that the kernel would walk a second time. The result is a descriptor, and
the next call (mount, mask, chown) acts on the descriptor.
"""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error

__all__ = [
    "ABSENT",
    "NULL",
    "RESOLVE",
    "RESOLVE_STRICT",
    "check_device",
    "check_magic",
    "ensure",
    "open_in_root",
    "parent_of",
    "try_open",
]

RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
RESOLVE_STRICT = RESOLVE | syscalls.RESOLVE_NO_SYMLINKS
#: the errors that mean that a path does not exist
ABSENT = (errno.ENOENT, errno.ENOTDIR)
#: the null device: major and minor number
NULL = (1, 3)
MAX_LINKS = 40
MAX_DEPTH = 256


def open_in_root(root: int, path: str, flags: int = os.O_PATH, *, follow: bool = True) -> int:
    """Opens `path` as if `root` were /. Refuses magic links, and without `follow` every symlink."""
    resolve = RESOLVE if follow else RESOLVE_STRICT
    return syscalls.openat2(root, path.lstrip("/") or ".", flags, resolve=resolve)


def try_open(root: int, path: str) -> int | None:
    """As `open_in_root`, but returns None if nothing exists there."""
    try:
        return open_in_root(root, path)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return None


class _Walk:
    """A walk with a stack of descriptors: `..` is the previous entry, so it never leaves the root."""

    def __init__(self, root: int) -> None:
        self.stack = [os.dup(root)]
        self.links = 0

    def close(self) -> None:
        for fd in self.stack:
            os.close(fd)

    def descend(self, parts: list[str]) -> str:
        """Walks all of `parts` but the last and creates directories. Returns the last name after symlinks."""
        pending = parts[::-1]
        while pending:
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                if len(self.stack) > 1:
                    os.close(self.stack.pop())
                continue
            target = self._link(name)
            if target is not None:
                if target.startswith("/"):
                    while len(self.stack) > 1:
                        os.close(self.stack.pop())
                pending.extend(target.split("/")[::-1])
                continue
            if not pending:
                return name
            self._enter(name)
        return "."

    def _link(self, name: str) -> str | None:
        try:
            target = os.readlink(name, dir_fd=self.stack[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise
        self.links += 1
        if self.links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        return target

    def _enter(self, name: str) -> None:
        if len(self.stack) > MAX_DEPTH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.stack[-1])
        except FileNotFoundError:
            try:
                os.mkdir(name, 0o755, dir_fd=self.stack[-1])
            except FileExistsError:
                pass
            fd = os.open(name, flags, dir_fd=self.stack[-1])
        self.stack.append(fd)


def _create_last(directory: int, name: str, *, is_directory: bool, mode: int) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        pass
    try:
        if is_directory:
            os.mkdir(name, mode, dir_fd=directory)
        else:
            os.close(
                os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode, dir_fd=directory)
            )
    except FileExistsError:
        pass  # another container created it meanwhile; the open below refuses a symlink
    return os.open(name, flags, dir_fd=directory)


def ensure(root: int, path: str, *, directory: bool, mode: int = 0o755, follow: bool = True) -> int:
    """An O_PATH descriptor of `path` below `root`. Creates it and its parents if they do not exist."""
    try:
        return open_in_root(root, path, follow=follow)
    except FileNotFoundError:
        if not follow and _is_link(root, path):
            raise
    except OSError as error:
        if not follow and error.errno == errno.ELOOP:
            raise Error(f"{path} in the root filesystem leads through a symlink") from None
        raise
    walk = _Walk(root)
    try:
        name = walk.descend(path.split("/"))
        return _create_last(walk.stack[-1], name, is_directory=directory, mode=mode)
    finally:
        walk.close()


def _is_link(root: int, path: str) -> bool:
    try:
        os.close(syscalls.openat2(root, path.lstrip("/"), os.O_PATH | os.O_NOFOLLOW, resolve=RESOLVE))
    except OSError:
        return False
    return True


def parent_of(root: int, path: str, *, follow: bool = True) -> tuple[int, str]:
    """The directory of `path` below `root`, created if missing, and the last name. `follow`: symlinks."""
    head, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise Error(f"{path!r} does not name a file")
    return ensure(root, head or "/", directory=True, follow=follow), name


def check_device(fd: int, major: int, minor: int, path: str) -> None:
    """Refuses a file that is not this character device (CVE-2025-31133: a replaced /dev/null)."""
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(major, minor):
        raise Error(f"{path} is not the character device {major}:{minor}")


def check_magic(fd: int, magic: int, what: str) -> None:
    """Refuses a descriptor on another filesystem than the required one (CVE-2025-52565, CVE-2025-52881)."""
    found = syscalls.fs_magic(fd)
    if found != magic:
        raise Error(f"{what} is on a filesystem of magic {found:#x}, not {magic:#x}")
