# SPDX-License-Identifier: Apache-2.0
"""Records of the rings -> typed events: `decode`. The layouts are generated (ringfence.abi).

A pure function on bytes: no kernel, no state, no I/O. What a record holds was partly chosen by the observed
process, so everything is checked before it is believed, and DecodeError is the only exception that leaves.
"""

from __future__ import annotations

from typing import Any

from ringfence import events
from ringfence.abi import ABI_VERSION, EVENT_MAX, EventKind, Layout
from ringfence.abi.records import HEADER, OBJECT, RECORD_LAYOUTS
from ringfence.events import Event

__all__ = ["HEADER", "OBJECT", "RECORDS", "DecodeError", "decode", "encode", "make"]

#: each record's layout and the class that its values become
RECORDS: dict[Layout, type[Any]] = {RECORD_LAYOUTS[kind.__bases__[0]]: kind for kind in events.RECORDS}


class DecodeError(ValueError):
    """A record that no probe of this build has sent. `reason` is a metric label: short, kind, version, size
    or length."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _layout_of(kind: EventKind) -> Layout:
    for event_class, names in events.RECORDS.items():
        if kind.name in names or kind.name.startswith(tuple(name[:-1] for name in names if name[-1] == "*")):
            return RECORD_LAYOUTS[event_class.__bases__[0]]
    raise KeyError(kind)


def _lengths(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Where the `x_len` values stand, each with the bytes that x has."""
    room = {f"{field.name}_len": field.count for field in layout.fields if field.type == "char"}
    return tuple((index, room[name]) for index, name in enumerate(layout.names) if name in room)


def _entry(kind: EventKind) -> tuple[int, Any, type[Any], tuple[tuple[int, int], ...]]:
    layout = _layout_of(kind)
    return layout.size, layout.unpack, RECORDS[layout], _lengths(layout)


#: (size, unpack, class, lengths) by event number: the one look-up of a decode
_KINDS = {kind.value: kind for kind in EventKind if kind}
_TABLE = [_entry(_KINDS[number]) if number in _KINDS else None for number in range(EVENT_MAX)]
_new = tuple.__new__


def decode(record: bytes | bytearray | memoryview) -> Event:
    """The event that a record of a ring holds.

    Bounds first, then one Struct for the whole record. Strings stay as they are until somebody asks for them
    (see ringfence.events). Raises DecodeError, and nothing else, on bytes that no probe could have sent.
    """
    size = len(record)
    if size < 4:
        raise DecodeError("short", f"{size} bytes are no header")
    kind = record[0] | record[1] << 8
    entry = _TABLE[kind] if kind < EVENT_MAX else None
    if entry is None:
        raise DecodeError("kind", f"no event has the number {kind}")
    if record[2] != ABI_VERSION:
        raise DecodeError("version", f"ABI version {record[2]}, not {ABI_VERSION}")
    expected, unpack, event_class, lengths = entry
    if size != expected:
        raise DecodeError("size", f"{size} bytes for event {kind}, not {expected}")
    values = unpack(record)
    for index, room in lengths:
        if values[index] > room:
            raise DecodeError("length", f"a string of {values[index]} bytes in {room}")
    event: Event = _new(event_class, values)
    return event


def encode(event: Event) -> bytes:
    """The record of an event: the inverse of `decode`, for tests, benchmarks and replays."""
    return _layout_of(EventKind(event.event)).pack(*event)


def make(kind: EventKind, **fields: Any) -> Event:
    """An event of that kind as a probe would have sent it, for tests and benchmarks.

    Texts are given as `path=b"/bin/sh"`; their length and their array are filled in. The rest has the names
    of the tuple, and is 0 (or: none) when it is not given.
    """
    layout = _layout_of(kind)
    values: dict[str, Any] = {"event": int(kind)}
    for field in (*HEADER.fields, *layout.fields):
        if field.type not in ("char", "bytes"):
            continue
        text: bytes = fields.pop(field.name, b"")
        if len(text) > field.count:
            raise ValueError(f"{field.name}: {len(text)} bytes in {field.count}")
        values[f"{field.name}_raw"] = text.ljust(field.count, b"\0")
        if f"{field.name}_len" in layout.names:
            values[f"{field.name}_len"] = len(text)
    event: Event = RECORDS[layout](**(values | fields))
    return event
