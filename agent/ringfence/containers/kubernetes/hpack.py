# SPDX-License-Identifier: Apache-2.0
"""The parts of HPACK (RFC 7541) that a client of unary gRPC calls needs.

Requests are not compressed. Responses may have Huffman codes, but no dynamic table: its announced size is 0
(SETTINGS_HEADER_TABLE_SIZE). Of the static table only `:status` is known; the headers of gRPC (grpc-status,
grpc-message) are in no table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

__all__ = ["HpackError", "decode", "encode"]

_STATIC_STATUS = {8: "200", 9: "204", 10: "206", 11: "304", 12: "400", 13: "404", 14: "500"}  # appendix A
_STRING_MAX = 1 << 14

# Appendix B: lengths of the codes of the symbols 0 to 256; 28*7 means seven times 28. The codes follow from
# them: they are assigned in the order of length, then symbol.
_LENGTHS = (
    "13 23 28*7 24 30 28*2 30 28*8 30 28*9 6 10*2 12 13 6 8 11 10*2 8 11 8 6*3 5*3 6*7 7 8 15 6 12 10 13 "
    "6 7*22 8 7 8 13 19 13 14 6 15 5 6 5 6 5 6*3 5 7*2 6*3 5 6 7 6 5*2 6 7*5 15 11 14 13 28 20 22 20*2 "
    "22*3 23 22 23*5 24 23 24*2 22 23 24 23*4 21 22 23 22 23*2 24 22 21 20 22*2 23*2 21 23 22*2 24 21 22 "
    "23*2 21*2 22 21 23 22 23*2 20 22*3 23 22*2 23 26*2 20 19 22 23 22 25 26*3 27*2 26 24 25 19 21 26 "
    "27*2 26 27 24 21*2 26*2 28 27*3 20 24 20 21 22 21*2 23 22*2 25*2 24*2 26 23 26 27 26*2 27*5 28 27*5 "
    "26 30"
)
_EOS = 256


class HpackError(ValueError):
    """The header block is invalid."""


@cache
def _codes() -> dict[tuple[int, int], int]:
    """(length, code) -> symbol."""
    runs = (word.partition("*") for word in _LENGTHS.split())
    lengths = [int(length) for length, _, count in runs for _ in range(int(count or 1))]
    found: dict[tuple[int, int], int] = {}
    code = before = 0
    for symbol in sorted(range(len(lengths)), key=lambda symbol: (lengths[symbol], symbol)):
        code <<= lengths[symbol] - before
        before = lengths[symbol]
        found[before, code] = symbol
        code += 1
    return found


def unhuffman(data: bytes) -> bytes:
    """Decodes Huffman codes (section 5.2): the last octet is padded with fewer than eight ones."""
    codes, text = _codes(), bytearray()
    code = length = 0
    for octet in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | octet >> shift & 1, length + 1
            symbol = codes.get((length, code))
            if symbol == _EOS or length > 30:
                raise HpackError("no such code")
            if symbol is not None:
                text.append(symbol)
                code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise HpackError("wrong padding")
    return bytes(text)


def decode(block: bytes) -> Iterator[tuple[str, str]]:
    """Yields names and values of a header block, without fields of the static table other than :status."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80:  # indexed
            index, at = _integer(block, at, 7)
            if index in _STATIC_STATUS:
                yield ":status", _STATIC_STATUS[index]
            elif not 1 <= index <= 61:
                raise HpackError("an index into a table that we do not keep")
        elif first & 0xE0 == 0x20:  # size update
            _, at = _integer(block, at, 5)
        else:  # literal: with indexing, without, never
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            name = ":status" if index in _STATIC_STATUS else ""
            if index == 0:
                name, at = _string(block, at)
            value, at = _string(block, at)
            if name:
                yield name, value


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """Decodes an integer (section 5.1); returns (value, its end)."""
    if at >= len(block):
        raise HpackError("cut off")
    most = (1 << bits) - 1
    value, at, shift = block[at] & most, at + 1, 0
    if value < most:
        return value, at
    while True:
        if at >= len(block) or shift > 21:
            raise HpackError("a number without an end")
        value += (block[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not block[at - 1] & 0x80:
            return value, at


def _string(block: bytes, at: int) -> tuple[str, int]:
    """Decodes a string (section 5.2); returns (text, its end)."""
    huffman = at < len(block) and bool(block[at] & 0x80)
    length, at = _integer(block, at, 7)
    data = block[at : at + length]
    if len(data) < length or length > _STRING_MAX:
        raise HpackError("cut off")
    return (unhuffman(data) if huffman else data).decode("latin-1"), at + length


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Encodes literals without indexing (section 6.2.2), uncompressed."""
    return b"".join(b"\0" + _plain(name) + _plain(value) for name, value in fields)


def _plain(text: str) -> bytes:
    data = text.encode("latin-1")
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest, head = len(data) - 127, bytearray((127,))
    while rest >= 128:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    return bytes(head) + data
