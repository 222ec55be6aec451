# SPDX-License-Identifier: Apache-2.0
"""Unpacks one layer into its own directory, in overlayfs's format of a lower directory.

`.wh.NAME` becomes a character device 0:0, `.wh..wh..opq` the attribute `<namespace>.overlay.opaque`.
Owners, modes (including setuid), times, links and allowlisted attributes are kept; LayerFacts counts
notable entries.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from ringfence_runtime.images import tar
from ringfence_runtime.images.errors import LayerError, LimitError, show
from ringfence_runtime.images.facts import DEVICES, LayerFacts
from ringfence_runtime.images.files import OPEN_DIRECTORY, FileMaker, is_whiteout
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.tree import Parents, split_name

__all__ = ["unpack_layer"]

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # aufs's own bookkeeping, which Docker also omits

Parts = tuple[bytes, ...]


def unpack_layer(
    reader: tar.TarReader, root: int, limits: Limits, *, devices: str, overlay: str
) -> LayerFacts:
    """Writes all entries below the directory `root`. devices: refuse, skip, make; overlay: trusted, user."""
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


class _Writer(FileMaker):
    def __init__(self, reader: tar.TarReader, root: int, limits: Limits, devices: str, opaque: str) -> None:
        super().__init__(reader, devices=devices, opaque=opaque)
        self.root = root
        self.limits = limits
        self.parents = Parents(root)
        self.times: dict[Parts, int] = {}
        self.names = 0
        self.kinds: dict[bytes, Callable[[tar.Entry, int, bytes], None]] = {
            tar.REGULAR: self.file,
            tar.HARDLINK: self._hardlink,
            tar.SYMLINK: self.symlink,
            tar.FIFO: self.node,
            tar.DEVICE_CHAR: self.node,
            tar.DEVICE_BLOCK: self.node,
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
                raise LayerError(f"{show(name)} would replace the root directory")
            self.attributes(entry, self.root)
            self.times[()] = entry.mtime_ns
            return
        if self._is_bookkeeping(parts, name):
            return
        parent = self.parents.ensure(parts[:-1], name)
        last = parts[-1]
        if last.startswith(_WHITEOUT):
            self._whiteout(entry, parent, last, at_root=len(parts) == 1)
        elif entry.kind == tar.DIRECTORY:
            self.directory(entry, parent, last)
            self.times[parts] = entry.mtime_ns
        else:
            if name.endswith(b"/"):
                raise LayerError(f"{show(name)} ends in a slash but is not a directory")
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
                raise LayerError(f"{show(name)} is below a whiteout")
        return parts[-1].startswith(_AUFS) and parts[-1] != _OPAQUE

    def finish(self) -> None:
        """Sets times of directories last, as created entries change them. Skips paths replaced since."""
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

    def _hardlink(self, entry: tar.Entry, parent: int, name: bytes) -> None:
        target = split_name(entry.link, self.limits.depth)
        message = f"{show(entry.name)}: a hardlink to {show(entry.link)}, which is not a file of this layer"
        if not target:
            raise LayerError(message)
        try:
            source = self.parents.find(target[:-1], entry.name)
            status = os.stat(target[-1], dir_fd=source, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise LayerError(message) from None
        if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
            raise LayerError(message)
        try:
            old = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            pass
        else:
            if (old.st_dev, old.st_ino) == (status.st_dev, status.st_ino):
                return
            self.clear(parent, name)
        os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        self.left_out(entry)

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
            raise LayerError(f"{show(entry.name)} is a whiteout without a name")
        try:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # It hides what lies below this layer only: an entry of the layer itself stays.
            if stat.S_ISDIR(os.stat(hidden, dir_fd=parent, follow_symlinks=False).st_mode):
                fd = os.open(hidden, OPEN_DIRECTORY, dir_fd=parent)
                try:
                    os.setxattr(fd, self.opaque, b"y")
                finally:
                    os.close(fd)
