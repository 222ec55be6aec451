# SPDX-License-Identifier: Apache-2.0
"""A directory tree in which entries with hostile names are created or removed.

All operations use descriptors: the parent of an entry is opened by openat2 with the layer's directory as
its root, and the last name is only passed to calls that do not follow symlinks.
"""

from __future__ import annotations

import errno
import os

from ringfence_linux import syscalls
from ringfence_runtime.images.errors import LayerError, LimitError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Parents", "remove_tree", "split_name"]

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED = 16
_REMOVE_DEPTH = 64


def split_name(name: bytes, depth: int) -> tuple[bytes, ...]:
    """Returns the components of a name in a layer. `..` is refused; a leading slash is ignored."""
    if b"\0" in name:
        raise LayerError(f"a name holds a NUL: {show(name)}")
    parts = tuple(part for part in name.split(b"/") if part and part != b".")
    if len(parts) > depth:
        raise LimitError(f"{show(name)}: more than {depth} directories deep")
    for part in parts:
        if part == b"..":
            raise LayerError(f"{show(name)}: leads out of its directory")
        if len(part) > 255:
            raise LimitError(f"{show(name)}: a name of more than 255 bytes")
    return parts


class Parents:
    """Opens (and creates, if missing) the parent directories of entries. Caches a few descriptors."""

    def __init__(self, root: int) -> None:
        self.root = root
        self.made: list[tuple[bytes, ...]] = []
        self._open: dict[tuple[bytes, ...], int] = {}

    def close(self) -> None:
        """Closes cached descriptors: after a directory or a symlink was replaced, paths may have changed."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()

    def find(self, parts: tuple[bytes, ...], shown: bytes) -> int:
        """Returns the existing directory `parts`; the cache keeps the descriptor."""
        if not parts:
            return self.root
        fd = self._open.pop(parts, None)
        if fd is not None:
            self._open[parts] = fd  # the last used is the last to be closed: callers hold two at a time
        else:
            try:
                fd = syscalls.openat2(
                    self.root, b"/".join(parts), _DIRECTORY & ~os.O_NOFOLLOW, resolve=_RESOLVE
                )
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                    raise LayerError(f"{show(shown)}: its parent is not a directory of this layer") from None
                raise
            self._keep(parts, fd)
        return fd

    def ensure(self, parts: tuple[bytes, ...], shown: bytes) -> int:
        """Returns the directory `parts`, creating it with mode 0755 if missing."""
        missing = 0
        while True:
            try:
                fd = self.find(parts[: len(parts) - missing], shown)
                break
            except FileNotFoundError:
                missing += 1
        for end in range(len(parts) - missing + 1, len(parts) + 1):
            try:
                os.mkdir(parts[end - 1], 0o755, dir_fd=fd)
            except FileExistsError:
                # The name exists but could not be opened: a dangling symlink.
                raise LayerError(
                    f"{show(shown)}: its parent is a symlink that leads nowhere in this layer"
                ) from None
            self.made.append(parts[:end])
            fd = os.open(parts[end - 1], _DIRECTORY, dir_fd=fd)
            self._keep(parts[:end], fd)
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o755)
        return fd

    def _keep(self, parts: tuple[bytes, ...], fd: int) -> None:
        if len(self._open) >= _CACHED:
            os.close(self._open.pop(next(iter(self._open))))
        self._open[parts] = fd


def remove_tree(parent: int, name: str | bytes) -> None:
    """Removes `name` below `parent` with any content; missing entries are no error.

    Any depth works (a container can nest directories deeper than any stack or descriptor table), and
    nothing is created (the disk may be full): deep directories are renamed to the level below `name`.
    """
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    try:
        target = _enter(parent, name)
    except FileNotFoundError:
        return  # another process has removed the same tree
    try:
        removal = _Removal(target)
        while os.listdir(target):
            removal.empty(target, 0)
    finally:
        os.close(target)
    _gone(os.rmdir, os.fsencode(name), parent)


class _Removal:
    def __init__(self, top: int) -> None:
        self.top = top
        self.number = 0

    def empty(self, fd: int, depth: int) -> None:
        """Removes the content of the directory `fd`."""
        with os.scandir(fd) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            if not is_directory:
                _gone(os.unlink, name, fd)
            elif depth >= _REMOVE_DEPTH:
                self._lift(fd, name)
            else:
                try:
                    inner = _enter(fd, name)
                except FileNotFoundError:
                    continue
                try:
                    self.empty(inner, depth + 1)
                finally:
                    os.close(inner)
                _gone(os.rmdir, name, fd)

    def _lift(self, fd: int, name: bytes) -> None:
        """Moves a directory to the top, under an unused name."""
        while True:
            self.number += 1
            try:
                os.rename(name, b"d%d" % self.number, src_dir_fd=fd, dst_dir_fd=self.top)
                return
            except FileNotFoundError:
                return
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                    raise


def _enter(parent: int, name: str | bytes) -> int:
    """Opens a directory to be emptied. Never across a mount, which has foreign content."""
    return syscalls.openat2(
        parent, name, _DIRECTORY, resolve=syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS
    )


def _gone(call: Callable[..., None], name: bytes, parent: int) -> None:
    try:
        call(name, dir_fd=parent)
    except FileNotFoundError:
        pass
