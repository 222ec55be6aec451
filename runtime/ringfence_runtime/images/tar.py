# SPDX-License-Identifier: Apache-2.0
"""A reader of layer tars: ustar, GNU long names and PAX, and nothing that two readers could read differently.

The standard library's reader takes headers of any size into memory, guesses, and raises a dozen kinds of
exception. This one raises LayerError or LimitError and nothing else. What it refuses, and why:

- sparse files (the image specification advises against them, and their maps lie about sizes);
- header sizes that disagree in meaning between readers: a hardlink with data, a global PAX header that
  renames;
- numbers that are negative, or longer than their field's meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Protocol

from ringfence_runtime.images.errors import LayerError, LimitError, show
from ringfence_runtime.images.limits import Limits
from ringfence_runtime.images.pax import Pax, parse_pax

__all__ = [
    "BLOCK",
    "DEVICE_BLOCK",
    "DEVICE_CHAR",
    "DIRECTORY",
    "FIFO",
    "HARDLINK",
    "REGULAR",
    "SYMLINK",
    "Entry",
    "TarReader",
]

BLOCK = 512
_ZERO = bytes(BLOCK)
# name mode uid gid size mtime chksum type linkname magic+version uname gname major minor prefix
_HEADER = Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")

REGULAR, HARDLINK, SYMLINK, DEVICE_CHAR, DEVICE_BLOCK, DIRECTORY, FIFO = (
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
)
_KINDS = frozenset((REGULAR, HARDLINK, SYMLINK, DEVICE_CHAR, DEVICE_BLOCK, DIRECTORY, FIFO))
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"

MAX_ID = (1 << 32) - 2  # the last one means "no change" to chown(2)
MAX_SIZE = 1 << 62
MAX_TIME = 1 << 34  # ext4's last second


class Stream(Protocol):
    """The archive's bytes in order (`LayerStream`, or a file)."""

    def read(self, size: int) -> bytes: ...

    def copy(self, size: int, write: Callable[[memoryview], object]) -> int: ...

    def skip(self, size: int) -> int: ...


class Entry:
    """One entry. Names are the bytes of the archive, not yet judged."""

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime_ns", "name", "size", "uid", "xattrs")

    def __init__(self, kind: bytes, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.link = b""
        self.mode = self.uid = self.gid = self.size = self.mtime_ns = self.major = self.minor = 0
        self.xattrs: dict[bytes, bytes] = {}


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes, what: str, limit: int) -> int:
    """An octal field, or GNU's base-256 form."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise LayerError(f"tar header: {what} is negative")
        value = int.from_bytes(bytes((field[0] & 0x3F,)) + field[1:], "big")
    else:
        text = _text(field).strip(b" ")
        if text and (not text.isdigit() or b"8" in text or b"9" in text):
            raise LayerError(f"tar header: {what} is not a number: {show(field)}")
        value = int(text or b"0", 8)
    if value > limit:
        raise LayerError(f"tar header: {what} is out of range")
    return value


def _time(field: bytes) -> int:
    """Seconds; a time before 1970 becomes 1970, since nothing depends on it."""
    return 0 if field[0] & 0xC0 == 0xC0 else min(_number(field, "mtime", 1 << 95), MAX_TIME)


class TarReader:
    """Iterates over the entries of a layer. Data that the caller does not `copy` is skipped."""

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._left = 0  # unread bytes of the current entry
        self._padding = 0
        self.headers = 0

    def copy(self, write: Callable[[memoryview], object]) -> None:
        """Pass the current entry's data to `write`, whole."""
        size, self._left = self._left, 0
        if self._stream.copy(size, write) != size:
            raise LayerError("the tar archive ends inside a file")

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._entry()) is not None:
            yield entry

    def _block(self) -> bytes | None:
        """The next header, None at the end of the archive."""
        gap = self._left + self._padding
        self._left = self._padding = 0
        if gap and self._stream.skip(gap) != gap:
            raise LayerError("the tar archive ends inside a file")
        block = self._stream.read(BLOCK)
        if not block:
            return None
        if block == _ZERO:
            block = self._stream.read(BLOCK)
            if block and block != _ZERO:
                # Some readers stop here and others continue: one layer would give two different trees.
                raise LayerError("tar: a lone zero block is followed by more entries")
            return None
        if len(block) != BLOCK:
            raise LayerError("the tar archive ends inside a header")
        self.headers += 1
        if self.headers > self._limits.entries:
            raise LimitError(f"the layer has more than {self._limits.entries} entries")
        return block

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _extension(self, size: int) -> bytes:
        if size > self._limits.header_bytes:
            raise LimitError(
                f"tar: an extended header of {size} bytes; at most {self._limits.header_bytes} are read"
            )
        self._expect(size)
        parts: list[bytes] = []
        self.copy(lambda part: parts.append(bytes(part)))
        return b"".join(parts)

    def _entry(self) -> Entry | None:
        name = link = None
        pax: Pax | None = None
        while (block := self._block()) is not None:
            fields = _HEADER.unpack(block)
            kind = fields[7]
            self._checksum(block, fields[6])
            if kind in _KINDS or kind == b"\0":
                return self._build(fields, name, link, pax)
            size = _number(fields[4], "size", MAX_SIZE)
            if kind == _PAX and pax is None:
                pax = parse_pax(self._extension(size), self._limits)
            elif kind == _PAX_GLOBAL:
                parse_pax(self._extension(size), self._limits).check_global()
            elif kind == _LONG_NAME and name is None:
                name = _text(self._extension(size))
            elif kind == _LONG_LINK and link is None:
                link = _text(self._extension(size))
            elif kind == _SPARSE:
                raise LayerError(f"tar: {show(_text(fields[0]))} is a sparse file, which layers may not hold")
            else:
                raise LayerError(f"tar: an entry of type {show(kind)} (twice, or of no known meaning)")
        if pax is not None or name is not None or link is not None:
            raise LayerError("tar: an extended header is followed by no entry")
        return None

    @staticmethod
    def _checksum(block: bytes, field: bytes) -> None:
        stated = _number(field, "checksum", 1 << 24)
        sum_ = sum(block) - sum(block[148:156]) + 8 * 32
        if stated == sum_:
            return
        negative = sum(1 for byte in block[:148] + block[156:] if byte > 127)
        if stated != sum_ - 256 * negative:  # some old programs add signed bytes
            raise LayerError("tar: the checksum of a header is wrong")

    def _build(
        self, fields: tuple[bytes, ...], name: bytes | None, link: bytes | None, pax: Pax | None
    ) -> Entry:
        kind = fields[7]
        if name is None:
            name = _text(fields[0])
            # Only POSIX's format has a prefix; GNU's keeps other things in its place.
            if fields[9] == b"ustar\x0000" and fields[14][0]:
                name = _text(fields[14]) + b"/" + name
        if kind == b"\0":
            kind = DIRECTORY if name.endswith(b"/") else REGULAR
        entry = Entry(kind, name)
        entry.link = _text(fields[8]) if link is None else link
        entry.mode = _number(fields[1], "mode", 1 << 31) & 0o7777
        entry.uid = _number(fields[2], "uid", 1 << 62)
        entry.gid = _number(fields[3], "gid", 1 << 62)
        entry.size = _number(fields[4], "size", MAX_SIZE)
        entry.mtime_ns = _time(fields[5]) * 10**9
        if kind in (DEVICE_CHAR, DEVICE_BLOCK):
            entry.major = _number(fields[12], "device number", (1 << 12) - 1)
            entry.minor = _number(fields[13], "device number", (1 << 20) - 1)
        if pax is not None:
            pax.apply(entry)
        self._judge(entry)
        return entry

    def _judge(self, entry: Entry) -> None:
        limits = self._limits
        if entry.uid > MAX_ID or entry.gid > MAX_ID:
            raise LayerError(f"tar: {show(entry.name)}: owner {entry.uid}:{entry.gid} is out of range")
        if len(entry.name) > limits.path_bytes or len(entry.link) > limits.path_bytes:
            raise LimitError(f"tar: {show(entry.name)}: a path of more than {limits.path_bytes} bytes")
        if entry.kind == REGULAR:
            if entry.size > limits.file_bytes:
                raise LimitError(
                    f"tar: {show(entry.name)}: {entry.size} bytes; a file may have {limits.file_bytes}"
                )
            self._expect(entry.size)
        elif entry.size and entry.kind == HARDLINK:
            # POSIX allows data here, most readers expect none: the following bytes would be ambiguous.
            raise LayerError(f"tar: {show(entry.name)}: a hardlink that has data")
