# SPDX-License-Identifier: Apache-2.0
"""Records of the rings -> typed events: `decode`. The layouts are generated (ringfence.abi).

A pure function on bytes: no kernel, no state, no I/O. What a record holds was partly chosen by the observed
process, so everything is checked before it is believed, and DecodeError is the only exception that leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ringfence import events
from ringfence.abi import ABI_VERSION, EVENT_MAX, PATH_LEN, EventKind
from ringfence.abi.layout import Field, Layout
from ringfence.abi.records import HEADER, OBJECT, RECORD_LAYOUTS, STRINGS_EVENT, SYSCALL_EVENT
from ringfence.events import Event

__all__ = ["HEADER", "OBJECT", "RECORDS", "DecodeError", "decode", "encode", "make"]

#: each record's layout and the class that its values become
RECORDS: dict[Layout, type[Any]] = {RECORD_LAYOUTS[kind.__bases__[0]]: kind for kind in events.RECORDS}
#: what a record of a call has that ends before its further strings, as most do
_NO_STRINGS = (0, 0, bytes(PATH_LEN), bytes(PATH_LEN))


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


def _fields(layout: Layout) -> Iterator[Field]:
    """The members of a struct, and of the structs in it."""
    for field in layout.fields:
        if isinstance(field.type, Layout):
            yield from _fields(field.type)
        else:
            yield field


def _lengths(layout: Layout) -> tuple[tuple[int, int], ...]:
    """Where the `x_len` values stand, each with the bytes that x has."""
    room = {f"{field.name}_len": field.count for field in _fields(layout) if field.type == "char"}
    return tuple((index, room[name]) for index, name in enumerate(layout.names) if name in room)


def _entry(kind: EventKind) -> _Entry:
    layout = _layout_of(kind)
    if layout is STRINGS_EVENT:  # mostly the first part of it
        return SYSCALL_EVENT.size, SYSCALL_EVENT.unpack, RECORDS[layout], _lengths(SYSCALL_EVENT), _NO_STRINGS
    return layout.size, layout.unpack, RECORDS[layout], _lengths(layout), ()


#: (size, unpack, class, lengths, values that the record lacks) by event number: the one look-up of a decode
_Entry = tuple[int, Any, type[Any], tuple[tuple[int, int], ...], tuple[Any, ...]]
_KINDS = {kind.value: kind for kind in EventKind if kind}
_TABLE = [_entry(_KINDS[number]) if number in _KINDS else None for number in range(EVENT_MAX)]
_LONGER: _Entry = (
    STRINGS_EVENT.size, STRINGS_EVENT.unpack, RECORDS[STRINGS_EVENT], _lengths(STRINGS_EVENT), (),
)  # fmt: skip
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
    if size != entry[0]:
        if size != STRINGS_EVENT.size or not entry[4]:
            raise DecodeError("size", f"{size} bytes for event {kind}, not {entry[0]}")
        entry = _LONGER
    _, unpack, event_class, lengths, lacking = entry
    values = unpack(record)
    for index, room in lengths:
        if values[index] > room:
            raise DecodeError("length", f"a string of {values[index]} bytes in {room}")
    event: Event = _new(event_class, values + lacking)
    return event


def encode(event: Event) -> bytes:
    """The record of an event: the inverse of `decode`, for tests, benchmarks and replays."""
    layout = _layout_of(EventKind(event.event))
    if layout is STRINGS_EVENT and event[-len(_NO_STRINGS) :] == _NO_STRINGS:
        return SYSCALL_EVENT.pack(*event[: -len(_NO_STRINGS)])
    return layout.pack(*event)


def make(kind: EventKind, **fields: Any) -> Event:
    """An event of that kind as a probe would have sent it, for tests and benchmarks.

    Texts are given as `path=b"/bin/sh"`; their length and their array are filled in. The rest has the names
    of the tuple, and is 0 (or: none) when it is not given.
    """
    layout = _layout_of(kind)
    values: dict[str, Any] = {"event": int(kind)}
    for field in _fields(layout):
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
