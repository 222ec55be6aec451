# SPDX-License-Identifier: Apache-2.0
"""The stream of bytes from a blob to a file: counted, hashed, limited, and untrusted until the end.

blob -> VerifiedBlob (digest and size of the blob) -> decompress() -> LayerStream (diff_id and limits)
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from ringfence_runtime.images.errors import LayerError, LayoutError, LimitError
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.zstd import zstd_chunks

__all__ = ["CHUNK", "LayerStream", "Reader", "VerifiedBlob", "decompress", "read_document"]

CHUNK = 64 << 10
OUTPUT = 1 << 20
MEMBERS = 1_000_000  # gzip members of one layer; eStargz writes one a file

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"


class Reader(Protocol):
    """A source of bytes; b"" is its end."""

    def read(self, size: int, /) -> bytes: ...


class VerifiedBlob:
    """A blob being read; `finish` verifies it against its descriptor."""

    def __init__(self, raw: Reader, digest: str, size: int) -> None:
        self._raw = raw
        self._hash = hashlib.new(digest.partition(":")[0], usedforsecurity=True)
        self.digest = digest
        self.size = size
        self.count = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; more than the descriptor's size is an error at once, not at the end."""
        data = self._raw.read(size)
        self.count += len(data)
        if self.count > self.size:
            raise LayoutError(f"blob {self.digest} is larger than the {self.size} bytes of its descriptor")
        self._hash.update(data)
        return data

    def finish(self) -> None:
        """Read what is left, then compare size and digest."""
        while self.read(CHUNK):
            pass
        if self.count != self.size:
            raise LayoutError(
                f"blob {self.digest} has {self.count} bytes, and its descriptor says {self.size}"
            )
        found = self._hash.hexdigest()
        if found != self.digest.partition(":")[2]:
            raise LayoutError(f"blob {self.digest} is damaged: its digest is {found}")


def read_document(blob: VerifiedBlob, limit: int) -> bytes:
    """A whole small blob, verified."""
    if blob.size > limit:
        raise LimitError(
            f"blob {blob.digest} says that it has {blob.size} bytes; a document may have {limit}"
        )
    parts = []
    while part := blob.read(CHUNK):
        parts.append(part)
    blob.finish()
    return b"".join(parts)


def decompress(blob: VerifiedBlob) -> Iterator[bytes]:
    """Yields the uncompressed bytes. The format follows from the first bytes, as both digests are checked."""
    head = b""
    while len(head) < 4 and (more := blob.read(CHUNK)):
        head += more
    if head.startswith(GZIP):
        return _gunzip(blob, head)
    if head.startswith(ZSTD):
        return zstd_chunks(blob, head)
    return _plain(blob, head)


def _plain(blob: VerifiedBlob, head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = blob.read(CHUNK)


def _gunzip(blob: VerifiedBlob, data: bytes) -> Iterator[bytes]:
    """One or more gzip members; what follows the last one must be another, as in Go's reader."""
    members = 0
    while data:
        members += 1
        if members > MEMBERS:
            raise LimitError(f"layer {blob.digest} has more than {MEMBERS} gzip members")
        member = zlib.decompressobj(31)
        while not member.eof:
            try:
                out = member.decompress(data, OUTPUT)
            except zlib.error as error:
                raise LayerError(f"layer {blob.digest} is not valid gzip: {error}") from None
            if out:
                yield out
            data = member.unconsumed_tail
            if not data and len(out) < OUTPUT and not member.eof:
                data = blob.read(CHUNK)
                if not data:
                    raise LayerError(f"layer {blob.digest} ends inside its gzip stream")
        data = member.unused_data or blob.read(CHUNK)


class LayerStream:
    """The uncompressed layer, in order: exact reads for the tar reader, and the digest of all that passed."""

    def __init__(
        self, chunks: Iterator[bytes], blob: VerifiedBlob, limits: Limits, algorithm: str = "sha256"
    ) -> None:
        self._chunks = chunks
        self._blob = blob
        self._limits = limits
        self._hash = hashlib.new(algorithm, usedforsecurity=True)
        self._algorithm = algorithm
        self._buffer = b""
        self._at = 0
        self.count = 0

    def _fill(self) -> bool:
        chunk = next(self._chunks, b"")
        if not chunk:
            return False
        self.count += len(chunk)
        self._check()
        self._hash.update(chunk)
        self._buffer = chunk
        self._at = 0
        return True

    def _check(self) -> None:
        limits = self._limits
        if self.count > limits.layer_bytes:
            raise LimitError(f"layer {self._blob.digest} unpacks to more than {limits.layer_bytes} bytes")
        if self.count > limits.ratio_free_bytes and self.count > limits.ratio * max(self._blob.count, 1):
            raise LimitError(f"layer {self._blob.digest} unpacks to more than {limits.ratio} times its size",
                             hint="this is how a zip bomb looks; --max-ratio allows more")  # fmt: skip

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, or fewer at the end."""
        end = self._at + size
        if end <= len(self._buffer):
            data = self._buffer[self._at : end]
            self._at = end
            return data
        parts: list[bytes] = []
        self.copy(size, lambda part: parts.append(bytes(part)))
        return b"".join(parts)

    def copy(self, size: int, write: Callable[[memoryview], object]) -> int:
        """Pass `size` bytes to `write` in pieces; returns how many there were."""
        left = size
        while left:
            if self._at >= len(self._buffer) and not self._fill():
                break
            part = memoryview(self._buffer)[self._at : self._at + left]
            write(part)
            self._at += len(part)
            left -= len(part)
        return size - left

    def skip(self, size: int) -> int:
        """Pass over `size` bytes (they are hashed and counted all the same)."""
        return self.copy(size, len)

    def finish(self) -> str:
        """Read to the end; returns the digest of everything."""
        while self._fill():
            pass
        return f"{self._algorithm}:{self._hash.hexdigest()}"
