# SPDX-License-Identifier: Apache-2.0
"""Unpack one layer into a directory of its own, in the form that overlayfs takes as a lower directory.

`.wh.NAME` becomes a character device 0:0, `.wh..wh..opq` the attribute `<namespace>.overlay.opaque`. Owners,
modes (setuid included), times, links and allow-listed attributes are kept; what deserves a word is counted in
LayerFacts.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from ringfence_runtime.images import tar, xattrs
from ringfence_runtime.images.errors import LayerError, LimitError, show
from ringfence_runtime.images.facts import DEVICES, LayerFacts
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.tree import Parents, split_name

__all__ = ["unpack_layer"]

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # aufs's own bookkeeping, which Docker leaves out, too
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[bytes, ...]


def unpack_layer(
    reader: tar.TarReader, root: int, limits: Limits, *, devices: str, overlay: str
) -> LayerFacts:
    """Write all entries below the directory `root`. `devices` is refuse, skip or make; `overlay` is trusted
    or user."""
    if devices not in DEVICES:
        raise LayerError(f"devices: {devices!r} is not one of {', '.join(DEVICES)}")
    writer = _Writer(reader, root, limits, devices, f"{overlay}.overlay.opaque")
    try:
        for entry in reader:
            writer.write(entry)
        writer.finish()
    finally:
        writer.parents.close()
    return writer.facts


class _Writer:
    def __init__(self, reader: tar.TarReader, root: int, limits: Limits, devices: str, opaque: str) -> None:
        self.reader = reader
        self.root = root
        self.limits = limits
        self.devices = devices
        self.opaque = opaque
        self.facts = LayerFacts()
        self.parents = Parents(root)
        self.times: dict[Parts, int] = {}
        self.names = 0
        self.stale = False
        self.kinds: dict[bytes, Callable[[tar.Entry, int, bytes], None]] = {
            tar.REGULAR: self._file,
            tar.HARDLINK: self._hardlink,
            tar.SYMLINK: self._symlink,
            tar.FIFO: self._node,
            tar.DEVICE_CHAR: self._node,
            tar.DEVICE_BLOCK: self._node,
        }
        os.fchmod(root, 0o755)

    def write(self, entry: tar.Entry) -> None:
        """Make one entry."""
        name = entry.name
        parts = split_name(name, self.limits.depth)
        self.names += len(name) + len(entry.link)
        if self.names > self.limits.names_bytes:
            raise LimitError(f"the names of the layer have more than {self.limits.names_bytes} bytes")
        if not parts:
            if entry.kind != tar.DIRECTORY:
                raise LayerError(f"{show(name)} takes the place of the root directory")
            self._attributes(entry, self.root)
            self.times[()] = entry.mtime_ns
            return
        if self._is_bookkeeping(parts, name):
            return
        parent = self.parents.ensure(parts[:-1], name)
        last = parts[-1]
        if last.startswith(_WHITEOUT):
            self._whiteout(entry, parent, last, at_root=len(parts) == 1)
        elif entry.kind == tar.DIRECTORY:
            self._directory(entry, parent, last)
            self.times[parts] = entry.mtime_ns
        else:
            if name.endswith(b"/"):
                raise LayerError(f"{show(name)} ends in a slash and is no directory")
            self.kinds[entry.kind](entry, parent, last)
        self.facts.count(entry)
        if self.stale:
            self.stale = False
            self.parents.close()

    @staticmethod
    def _is_bookkeeping(parts: Parts, name: bytes) -> bool:
        for part in parts[:-1]:
            if part.startswith(_AUFS):
                return True
            if part.startswith(_WHITEOUT):
                raise LayerError(f"{show(name)} lies below a whiteout")
        return parts[-1].startswith(_AUFS) and parts[-1] != _OPAQUE

    def finish(self) -> None:
        """Times of directories last: every entry made in one changes them. A path that was replaced since is
        skipped."""
        for parts in self.parents.made:
            self.times.setdefault(parts, 0)
        self.times.setdefault((), 0)
        for parts in sorted(self.times, key=len, reverse=True):
            try:
                parent = self.parents.find(parts[:-1], b"")
                time = self.times[parts]
                if parts:
                    os.utime(parts[-1], ns=(time, time), dir_fd=parent, follow_symlinks=False)
                else:
                    os.utime(self.root, ns=(time, time))
            except (FileNotFoundError, LayerError):
                continue

    def _make(self, parent: int, name: bytes, make: Callable[[], object]) -> None:
        """Run `make`; where the name is taken by an earlier entry of this layer, the later one counts."""
        try:
            make()
        except FileExistsError:
            self._clear(parent, name)
            make()

    def _clear(self, parent: int, name: bytes) -> int:
        """Remove what an earlier entry made; returns its mode. A directory must be empty."""
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        # Open directories that were reached through this name may no longer be what their paths say.
        self.stale = self.stale or not stat.S_ISREG(mode)
        if not stat.S_ISDIR(mode):
            os.unlink(name, dir_fd=parent)
            return mode
        try:
            os.rmdir(name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise LayerError(f"{show(name)} takes the place of a directory that is not empty") from None
        return mode

    def _attributes(self, entry: tar.Entry, fd: int) -> None:
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
                if error.errno not in (errno.ENOTSUP, errno.EPERM) or key == xattrs.CAPABILITY:
                    raise
                dropped.append(key)
        self.facts.capabilities += xattrs.CAPABILITY in kept
        self.facts.dropped(dropped)

    def _file(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            self.reader.copy(lambda part: _write_all(fd, part))
            self._attributes(entry, fd)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _directory(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        opaque = False
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                # A whiteout before a directory of its name means: this one, and nothing of the layers below.
                opaque = stat.S_ISCHR(self._clear(parent, name))
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            self._attributes(entry, fd)
            if opaque:
                os.setxattr(fd, self.opaque, b"y")
        finally:
            os.close(fd)

    def _left_out(self, entry: tar.Entry) -> None:
        if entry.xattrs:
            self.facts.dropped(list(entry.xattrs))

    def _finish_node(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        time = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=time, dir_fd=parent, follow_symlinks=False)
        self._left_out(entry)

    def _symlink(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        if not entry.link or b"\0" in entry.link:
            raise LayerError(f"{show(entry.name)}: a symlink to nothing")
        self._make(parent, name, lambda: os.symlink(entry.link, name, dir_fd=parent))
        self._finish_node(entry, parent, name)

    def _node(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        """A FIFO, or a device where devices are allowed."""
        mode = entry.mode
        if entry.kind == tar.FIFO:
            mode |= stat.S_IFIFO
        else:
            if self.devices == "refuse":
                raise LayerError(
                    f"{show(entry.name)} is a device node ({entry.major}:{entry.minor})",
                    hint="--devices skip leaves them out, --devices make makes them",
                )
            if self.devices == "skip":
                self.facts.devices_skipped += 1
                return
            if not entry.major and not entry.minor:
                raise LayerError(f"{show(entry.name)} is the device 0:0, which means a whiteout to overlayfs")
            mode |= stat.S_IFCHR if entry.kind == tar.DEVICE_CHAR else stat.S_IFBLK
            self.facts.devices += 1
        number = os.makedev(entry.major, entry.minor)
        self._make(parent, name, lambda: os.mknod(name, mode, number, dir_fd=parent))
        self._finish_node(entry, parent, name)
        os.chmod(
            name, entry.mode, dir_fd=parent
        )  # mknod obeyed the umask; the name is no symlink, we made it

    def _hardlink(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        target = split_name(entry.link, self.limits.depth)
        message = f"{show(entry.name)}: a hardlink to {show(entry.link)}, which is no file of this layer"
        if not target:
            raise LayerError(message)
        try:
            source = self.parents.find(target[:-1], entry.name)
            status = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise LayerError(message) from None
        if stat.S_ISDIR(status.st_mode) or _is_whiteout(status):
            raise LayerError(message)
        try:
            old = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if (old.st_dev, old.st_ino) == (status.st_dev, status.st_ino):
                return
            self._clear(parent, name)
        os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        self._left_out(entry)

    def _whiteout(self, entry: tar.Entry, parent: int, name: bytes, *, at_root: bool) -> None:
        if entry.kind == tar.DIRECTORY:
            raise LayerError(f"{show(entry.name)}: a whiteout cannot be a directory")
        self.facts.whiteouts += 1
        if name == _OPAQUE:
            os.setxattr(parent, self.opaque, b"y")
            self.facts.opaque_root = self.facts.opaque_root or at_root
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise LayerError(f"{show(entry.name)} hides nothing that has a name")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # It hides what lies below this layer only: an entry of the layer itself stays.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                fd = os.open(hidden, _OPEN_DIRECTORY, dir_fd=parent)
                try:
                    os.setxattr(fd, self.opaque, b"y")
                finally:
                    os.close(fd)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
