# SPDX-License-Identifier: Apache-2.0
"""The source of an image's blobs: a directory or a tar, with untrusted content.

A directory's files are opened below it (openat2 RESOLVE_BENEATH, against blobs that are symlinks or
FIFOs). A tar is indexed once and then read by offset, so that its entries need no order and no copy.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from ringfence_linux import syscalls
from ringfence_runtime.images import tar
from ringfence_runtime.images.errors import LayerError, LayoutError, LimitError, show, store_error
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.streams import CHUNK, GZIP, ZSTD
from ringfence_runtime.images.tree import split_name
from ringfence_runtime.launch.wasm import MAGIC

__all__ = ["DirectorySource", "ModuleFile", "Source", "TarSource", "Window", "open_source"]

NO_IMAGE = "an image is an OCI layout or a docker archive: skopeo copy docker://IMAGE oci:DIR:TAG makes one"
_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Window:
    """A range of an open file, read by offset; it is a `Reader`."""

    def __init__(self, fd: int, start: int, size: int, *, owned: bool) -> None:
        self._fd = fd
        self._at = start
        self._end = start + size
        self.size = size
        self._owned = owned

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, b"" at the end of the range or of the file."""
        data = os.pread(self._fd, min(size, self._end - self._at), self._at)
        self._at += len(data)
        return data

    def __enter__(self) -> Window:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if self._owned:
            os.close(self._fd)


class Source(Protocol):
    """What the rest of the package needs of a directory or a tar."""

    name: str

    def open(self, path: str) -> Window | None:
        """A file by its path in the layout, or None where there is none. Use it in a `with`."""

    def close(self) -> None:
        """Give the descriptors back."""


class DirectorySource:
    """An image layout as a directory."""

    def __init__(self, path: str) -> None:
        self.name = os.path.basename(os.path.abspath(path))
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open(self, path: str) -> Window | None:
        """See `Source.open`."""
        try:
            fd = syscalls.openat2(self._fd, path, _FLAGS, resolve=_RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise LayoutError(f"{path} of the layout cannot be opened: {error.strerror}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise LayoutError(f"{path} of the layout is not a regular file")
        return Window(fd, 0, status.st_size, owned=True)

    def close(self) -> None:
        """See `Source.close`."""
        os.close(self._fd)


class _FileStream:
    """A seekable file in the shape that TarReader reads; data is passed over without being read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.at = 0
        self._size = os.fstat(fd).st_size

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.at)
        self.at += len(data)
        return data

    def copy(self, size: int, write: Callable[[memoryview], object]) -> int:
        data = self.read(size)
        write(memoryview(data))
        return len(data)

    def skip(self, size: int) -> int:
        passed = min(size, max(self._size - self.at, 0))
        self.at += passed
        return passed


class TarSource:
    """An image layout, or what `docker save` writes, as a tar."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.name = os.path.basename(path).removesuffix(".tar")
        self._fd = os.open(path, _FLAGS)
        self._files: dict[str, tuple[int, int]] = {}
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise LayoutError(f"{show(path)} is neither a directory nor a regular file")
            if os.pread(self._fd, 4, 0).startswith((GZIP, ZSTD)):
                raise LayoutError(f"{show(path)} is compressed as a whole", hint="decompress it first")
            if os.pread(self._fd, 5, 257) != b"ustar":  # which all write since 1988
                raise LayoutError(f"{show(path)} is not an archive", hint=NO_IMAGE)
            self._index(limits)
        except BaseException:
            os.close(self._fd)
            raise

    def _index(self, limits: Limits) -> None:
        stream = _FileStream(self._fd)
        links: list[tuple[str, str]] = []
        names = 0
        for entry in tar.TarReader(stream, limits):
            name = b"/".join(split_name(entry.name, limits.depth)).decode("utf-8", "surrogateescape")
            names += len(name)
            if names > limits.names_bytes:
                raise LimitError("the names in the archive are too long")
            if entry.kind == tar.REGULAR:
                self._add(name, (stream.at, entry.size))
            elif entry.kind in (tar.HARDLINK, tar.SYMLINK):
                base = os.path.dirname(name) if entry.kind == tar.SYMLINK else ""
                links.append((name, os.path.normpath(os.path.join(base, os.fsdecode(entry.link)))))
        for name, target in links:  # docker save links duplicate layers
            if target in self._files:
                self._add(name, self._files[target])

    def _add(self, name: str, where: tuple[int, int]) -> None:
        if name in self._files:
            raise LayerError(f"the archive holds {show(name)} twice")
        self._files[name] = where

    def open(self, path: str) -> Window | None:
        """See `Source.open`."""
        where = self._files.get(path)
        return None if where is None else Window(self._fd, *where, owned=False)

    def close(self) -> None:
        """See `Source.close`."""
        os.close(self._fd)


class ModuleFile:
    """A file with a WebAssembly module, which is a source with one nameless blob."""

    def __init__(self, path: str) -> None:
        self.name = os.path.basename(path).removesuffix(".wasm")
        self._fd = os.open(path, _FLAGS)
        self.size = os.fstat(self._fd).st_size

    def digest(self) -> str:
        """Returns the digest of the file."""
        whole = hashlib.sha256()
        with Window(self._fd, 0, self.size, owned=False) as window:
            while chunk := window.read(CHUNK):
                whole.update(chunk)
        return f"sha256:{whole.hexdigest()}"

    def open(self, path: str) -> Window | None:
        """See `Source.open`."""
        return None if path else Window(self._fd, 0, self.size, owned=False)

    def close(self) -> None:
        """See `Source.close`."""
        os.close(self._fd)


def _is_module(path: str) -> bool:
    fd = os.open(path, _FLAGS)
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, len(MAGIC), 0) == MAGIC
    finally:
        os.close(fd)


def open_source(path: str, limits: Limits) -> Source:
    """Returns the source at `path`: a directory, a tar, or a WebAssembly module."""
    try:
        if os.path.isdir(path):
            return DirectorySource(path)
        return ModuleFile(path) if _is_module(path) else TarSource(path, limits)
    except FileNotFoundError:
        raise LayoutError(f"there is no file or directory {show(path)}", hint=NO_IMAGE) from None
    except OSError as error:
        raise store_error("cannot read the image", error) from None
