# SPDX-License-Identifier: Apache-2.0
"""Creates one file of a layer, by the descriptor of its directory and its last name."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from ringfence_runtime.images import tar, xattrs
from ringfence_runtime.images.errors import LayerError, show
from ringfence_runtime.images.facts import LayerFacts

__all__ = ["OPEN_DIRECTORY", "FileMaker", "is_whiteout"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_ANY_XATTR = 1024


class FileMaker:
    """`stale` is called if open directories may no longer match their paths; `facts` counts entries."""

    def __init__(self, reader: tar.TarReader, *, devices: str, opaque: str) -> None:
        self.reader = reader
        self.devices = devices
        self.opaque = opaque
        self.facts = LayerFacts()
        self.stale = False

    def make(self, parent: int, name: bytes, make: Callable[[], object]) -> None:
        """Runs `make`; an existing entry of this layer with that name is replaced."""
        try:
            make()
        except FileExistsError:
            self.clear(parent, name)
            make()

    def clear(self, parent: int, name: bytes) -> os.stat_result:
        """Removes an earlier entry; returns its mode. A directory must be empty."""
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        mode = status.st_mode
        # Open directories that were reached through this name may no longer match their paths.
        self.stale = self.stale or not stat.S_ISREG(mode)
        if not stat.S_ISDIR(mode):
            os.unlink(name, dir_fd=parent)
            return status
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise LayerError(f"{show(name)} would replace a directory that is not empty") from None
        return status

    def attributes(self, entry: tar.Entry, fd: int) -> None:
        """Owner first: chown clears setuid and file capabilities."""
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if not entry.xattrs:
            return
        kept, dropped = xattrs.chosen(entry.xattrs, entry.name, regular=entry.kind == tar.REGULAR)
        for key, value in kept.items():
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.E2BIG) and len(value) > _ANY_XATTR:
                    # ext4 keeps all attributes of a file in one block, and reports more as a full disk.
                    raise LayerError(
                        f"{show(entry.name)}: too large an attribute for this filesystem"
                    ) from None
                if error.errno not in (errno.ENOTSUP, errno.EPERM) or key == xattrs.CAPABILITY:
                    raise
                dropped.append(key)
        self.facts.capabilities += xattrs.CAPABILITY in kept
        self.facts.dropped(dropped)

    def file(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """A regular file with its data."""
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self.clear(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            self.reader.copy(lambda part: _write_all(fd, part))
            self.attributes(entry, fd)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def directory(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """Creates a directory, or changes an existing one."""
        opaque = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                # A whiteout before a directory of its name hides the lower layers' directory.
                opaque = is_whiteout(self.clear(parent, name))
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, OPEN_DIRECTORY, dir_fd=parent)
        try:
            self.attributes(entry, fd)
            if opaque:
                os.setxattr(fd, self.opaque, b"y")
        finally:
            os.close(fd)

    def left_out(self, entry: tar.Entry) -> None:
        """Returns attributes that this kind of file cannot or must not have."""
        if entry.xattrs:
            self.facts.dropped(list(entry.xattrs))

    def _finish_node(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        time = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=time, dir_fd=parent, follow_symlinks=False)
        self.left_out(entry)

    def symlink(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """Creates a symlink; its target is resolved only in the container."""
        if not entry.link or b"\0" in entry.link:
            raise LayerError(f"{show(entry.name)}: a symlink without a target")
        self.make(parent, name, lambda: os.symlink(entry.link, name, dir_fd=parent))
        self._finish_node(entry, parent, name)

    def node(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """Creates a FIFO, or a device if devices are allowed."""
        mode = entry.mode
        if entry.kind == tar.FIFO:
            mode |= stat.S_IFIFO
        else:
            if self.devices == "refuse":
                raise LayerError(
                    f"{show(entry.name)} is a device node ({entry.major}:{entry.minor})",
                    hint="--devices skip omits them, --devices make creates them",
                )
            if self.devices == "skip":
                self.facts.devices_skipped += 1
                return
            if not entry.major and not entry.minor:
                raise LayerError(f"{show(entry.name)} is the device 0:0, which means a whiteout to overlayfs")
            mode |= stat.S_IFCHR if entry.kind == tar.DEVICE_CHAR else stat.S_IFBLK
            self.facts.devices += 1
        number = os.makedev(entry.major, entry.minor)
        self.make(parent, name, lambda: os.mknod(name, mode, number, dir_fd=parent))
        self._finish_node(entry, parent, name)
        # mknod applied the umask. The name is not a symlink: it was just created.
        os.chmod(name, entry.mode, dir_fd=parent)


def is_whiteout(status: os.stat_result) -> bool:
    """Returns True for overlayfs's mark of a removed file: the character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
