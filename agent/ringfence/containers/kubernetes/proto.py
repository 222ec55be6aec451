# SPDX-License-Identifier: Apache-2.0
"""Protocol buffers by field tables: the messages used of the CRI (k8s.io/cri-api, runtime/v1/api.proto).

A message is a table of field numbers; other fields are skipped. Values are a text, a message, or a map of
texts. Invalid bytes raise ProtoError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = [
    "CONTAINERS",
    "CONTAINER_STATUS",
    "SANDBOX_STATUS",
    "VERSION",
    "Field",
    "ProtoError",
    "Table",
    "decode",
    "text_field",
]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_ENTRIES_MAX = 1024  # of a map or a list
_FIELDS_MAX = 1 << 16  # of a message and all messages within: decoding a field takes about a microsecond


class ProtoError(ValueError):
    """The bytes are not a valid message."""


class Field(NamedTuple):
    """A field: its name, and its type: a message (`table`), a map of texts, or a text."""

    name: str
    table: Mapping[int, Field] | None = None
    many: bool = False
    pairs: bool = False


Table = Mapping[int, Field]
_IMAGE: Table = {1: Field("image"), 18: Field("user_specified_image")}
_METADATA: Table = {1: Field("name")}
#: VersionResponse
VERSION: Table = {2: Field("runtime_name"), 3: Field("runtime_version")}
#: ListContainersResponse
CONTAINERS: Table = {
    1: Field("containers", {1: Field("id"), 2: Field("pod_sandbox_id"), 3: Field("metadata", _METADATA),
                            4: Field("image", _IMAGE), 8: Field("labels", pairs=True)}, many=True),
}  # fmt: skip
#: ContainerStatusResponse
CONTAINER_STATUS: Table = {
    1: Field("status", {1: Field("id"), 2: Field("metadata", _METADATA), 8: Field("image", _IMAGE),
                        9: Field("image_ref"), 12: Field("labels", pairs=True)}),
}  # fmt: skip
#: PodSandboxStatusResponse
SANDBOX_STATUS: Table = {
    1: Field("status", {1: Field("id"),
                        2: Field("metadata", {1: Field("name"), 2: Field("uid"), 3: Field("namespace")}),
                        7: Field("labels", pairs=True)}),
}  # fmt: skip


def decode(data: bytes, table: Table, left: Iterator[int] | None = None) -> dict[str, Any]:
    """Returns the known fields of a message. `left` has an item for each field that may still follow.

    A list that is too long is refused. Of a map the first entries are taken: labels are the user's.
    """
    found: dict[str, Any] = {}
    left = iter(range(_FIELDS_MAX)) if left is None else left
    for number, value in _fields(data):
        if next(left, None) is None:
            raise ProtoError(f"more than {_FIELDS_MAX} fields")
        field = table.get(number)
        if field is None or not isinstance(value, bytes):
            continue
        if field.pairs:
            pair = decode(value, {1: Field("key"), 2: Field("value")}, left)
            pairs = found.setdefault(field.name, {})
            if len(pairs) < _ENTRIES_MAX:
                pairs[pair.get("key", "")] = pair.get("value", "")
        elif field.table is None:
            found[field.name] = value.decode("utf-8", "replace")
        elif field.many:
            entries = found.setdefault(field.name, [])
            if len(entries) >= _ENTRIES_MAX:
                raise ProtoError(f"more than {_ENTRIES_MAX} {field.name}")
            entries.append(decode(value, field.table, left))
        else:
            found[field.name] = found.get(field.name, {}) | decode(value, field.table, left)
    return found


def text_field(number: int, value: str | bytes) -> bytes:
    """Encodes a field with a text or a message."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ProtoError(f"wire type {kind}")
        if at + length > len(data):
            raise ProtoError("cut off")
        content = data[at : at + length]
        yield key >> 3, content if kind == _BYTES else int.from_bytes(content, "little")
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at
    raise ProtoError("a number without an end")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
