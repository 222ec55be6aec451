# SPDX-License-Identifier: Apache-2.0
"""PAX extended headers (POSIX pax, "length keyword=value\\n"), strictly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringfence_runtime.images.errors import LayerError, LimitError, show
from ringfence_runtime.images.limits import Limits

if TYPE_CHECKING:
    from ringfence_runtime.images.tar import Entry

__all__ = ["Pax", "parse_pax"]

XATTR = b"SCHILY.xattr."
MAX_XATTRS = 64
# A global header that changes what follows is obeyed by some readers and not by others.
_NOT_GLOBAL = (b"path", b"linkpath", b"size", b"uid", b"gid", b"GNU.sparse.", XATTR)
_MAX_TIME = 1 << 34


def _integer(key: bytes, value: bytes) -> int:
    if not value.isdigit() or len(value) > 19:
        raise LayerError(f"tar: PAX {key.decode()} is not a number: {show(value)}")
    return int(value)


def _nanoseconds(value: bytes) -> int:
    """Decimal seconds with a fraction of any length; a time before 1970 becomes 1970."""
    seconds, _, fraction = value.removeprefix(b"-").partition(b".")
    if not seconds.isdigit() or (fraction and not fraction.isdigit()) or len(seconds) > 19:
        raise LayerError(f"tar: PAX mtime is not a time: {show(value)}")
    if value.startswith(b"-"):
        return 0
    return min(int(seconds), _MAX_TIME) * 10**9 + int(fraction[:9].ljust(9, b"0"))


class Pax:
    """The records of one header; the last one of a keyword counts, an empty value takes it back."""

    __slots__ = ("records", "xattrs")

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}

    def check_global(self) -> None:
        """A global header may hold comments and the like, nothing that changes an entry."""
        for key in self.records:
            if key.startswith(_NOT_GLOBAL):
                raise LayerError(f"tar: a global PAX header sets {show(key)} for all that follows")
        if self.xattrs:
            raise LayerError("tar: a global PAX header sets extended attributes for all that follows")

    def apply(self, entry: Entry) -> None:
        """Put the records in the place of the header's fields."""
        get = self.records.get
        entry.name = get(b"path") or entry.name
        entry.link = get(b"linkpath") or entry.link
        for key in (b"uid", b"gid", b"size"):
            if value := get(key):
                setattr(entry, key.decode(), _integer(key, value))
        if value := get(b"mtime"):
            entry.mtime_ns = _nanoseconds(value)
        entry.xattrs = self.xattrs


def parse_pax(data: bytes, limits: Limits) -> Pax:
    """Decode the records. Keywords that mean nothing to a layer are passed over."""
    pax = Pax()
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        digits = data[at:space]
        if space < 0 or not digits.isdigit():
            raise LayerError("tar: a PAX record has no length")
        end = at + int(digits)
        if end > len(data) or end < space + 3 or data[end - 1] != 0x0A:
            raise LayerError("tar: a PAX record has a wrong length")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise LayerError("tar: a PAX record has no keyword")
        _record(pax, key, value, limits)
        at = end
    return pax


def _record(pax: Pax, key: bytes, value: bytes, limits: Limits) -> None:
    if key.startswith(XATTR):
        name = key[len(XATTR) :]
        if not name or b"\0" in name or len(name) > 255:
            raise LayerError(f"tar: the name of an extended attribute is not one: {show(name)}")
        if len(value) > limits.xattr_bytes or len(pax.xattrs) >= MAX_XATTRS:
            raise LimitError(f"tar: too many or too large extended attributes ({show(name)})")
        pax.xattrs[name] = value
    elif key.startswith(b"GNU.sparse."):
        raise LayerError("tar: a sparse file, which layers may not hold")
    elif key in (b"path", b"linkpath") and b"\0" in value:
        raise LayerError(f"tar: PAX {key.decode()} holds a NUL: {show(value)}")
    elif key in (b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime"):
        pax.records[key] = value
