# SPDX-License-Identifier: Apache-2.0
"""One declaration of a C struct gives its struct.Struct, the names, the offsets and the test against BTF."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Field", "Layout", "MapShape"]

_CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s8": "b", "s16": "h", "s32": "i", "s64": "q"}


class MapShape(NamedTuple):
    """Bytes of a key and of a value (of one CPU), as the agent reads and writes them."""

    key: int
    value: int


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a C struct.

    `type` is u8 to u64, s8 to s64 (`count` of them become as many values), `char` or `bytes` (an array
    of `count` char or u8, which becomes one bytes value), or another Layout. A name that begins with `pad`
    has no value.
    """

    name: str
    type: str | Layout
    count: int = 1

    @property
    def is_padding(self) -> bool:
        return self.name.startswith("pad")

    @property
    def size(self) -> int:
        """Bytes that the member takes."""
        if isinstance(self.type, Layout):
            return self.type.size
        if self.type in ("char", "bytes"):
            return self.count
        return self.count * struct.calcsize("=" + _CODES[self.type])

    @property
    def format(self) -> str:
        """The member in the notation of the struct module."""
        if isinstance(self.type, Layout):
            return self.type.format
        if self.is_padding:
            return f"{self.size}x"
        if self.type in ("char", "bytes"):
            return f"{self.count}s"
        return f"{self.count}{_CODES[self.type]}" if self.count > 1 else _CODES[self.type]

    def value_names(self) -> Iterator[str]:
        """What its values are called: elements of an array are numbered, bytes end in `_raw`."""
        if isinstance(self.type, Layout):
            yield from self.type.names
        elif self.is_padding:
            return
        elif self.type in ("char", "bytes"):
            yield f"{self.name}_raw"
        elif self.count > 1:
            yield from (f"{self.name}{index}" for index in range(self.count))
        else:
            yield self.name


class Layout:
    """A C struct with natural alignment and no unnamed hole.

    `pack` takes and `unpack` gives one value for each of `names`, in the order of the struct.
    """

    __slots__ = ("ctype", "fields", "format", "names", "pack", "pack_into", "size", "unpack", "unpack_from")

    def __init__(self, ctype: str, *fields: Field) -> None:
        self.ctype = ctype
        self.fields = fields
        self.format = "".join(field.format for field in fields)
        compiled = struct.Struct(
            "=" + self.format
        )  # fixed sizes, no hidden padding; every target is little endian
        self.size = compiled.size
        self.names = tuple(name for field in fields for name in field.value_names())
        self.pack, self.unpack = compiled.pack, compiled.unpack
        self.pack_into, self.unpack_from = compiled.pack_into, compiled.unpack_from

    def offsets(self) -> Iterator[tuple[Field, int]]:
        """Each member and where it begins, in bytes."""
        offset = 0
        for field in self.fields:
            yield field, offset
            offset += field.size

    def offset_of(self, name: str) -> int:
        """Where the member of that name begins, in bytes. KeyError when there is none."""
        for field, offset in self.offsets():
            if field.name == name:
                return offset
        raise KeyError(name)

    def __repr__(self) -> str:
        return f"Layout({self.ctype}, {self.size} bytes)"
