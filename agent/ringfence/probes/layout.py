# SPDX-License-Identifier: Apache-2.0
"""Makes a decoder of records from the compiled struct and the YAML's fields. Pure: bytes in, values out.

A record is the kernel's time (8 bytes, CLOCK_BOOTTIME) and the struct as the probe sent it.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ringfence.errors import ProbeError, Problem
from ringfence.policy.model import Place
from ringfence.policy.probe_rules import Value
from ringfence.probes.definition import Definition

__all__ = ["Decoded", "Decoder", "new_decoder"]

_HEAD = 8
_TASK = struct.Struct("=QQII16s")  # struct rf_task of ringfence.h
_INTEGERS = {
    "_Bool": "?", "char": "b", "signed char": "b", "unsigned char": "B",
    "short": "h", "unsigned short": "H", "int": "i", "unsigned int": "I",
    "long": "q", "unsigned long": "Q", "long long": "q", "unsigned long long": "Q",
}  # fmt: skip
_BYTES = ("char", "unsigned char", "signed char")
Shape = Sequence[tuple[str, str, int, int, int]]
_Reader = Callable[[Any], Value]


class Decoded(NamedTuple):
    """One record. `values` are in the order of the YAML; 0 and b"" if the probe does not provide them.

    The observed process chose the bytes of `comm`, and of texts among the values (with surrogates).
    """

    time_ns: int
    container: int
    pid: int
    tid: int
    start_ns: int
    comm: bytes
    values: tuple[Value, ...]


class _Member(NamedTuple):
    type: str
    offset: int
    size: int
    elements: int


class _Wanted(NamedTuple):
    """A member that becomes a value: its offset in the record, and its converter."""

    offset: int
    reader: _Reader | None


class Decoder:
    """Decodes records of one probe. `decode` raises ValueError for a record of another size."""

    def __init__(
        self,
        size: int,
        members: Mapping[int, str],
        wanted: Sequence[_Wanted],
        owner: Sequence[int],
        task: int,
    ) -> None:
        """`members`: offset in the record -> struct code; `owner`: offsets; `task`: its offset, or 0."""
        offsets = sorted(members)
        text, position = "=Q", _HEAD
        for offset in offsets:
            text += f"{offset - position}x{members[offset]}"
            position = offset + struct.calcsize("=" + members[offset])
        self._size, self._struct, self._task = size, struct.Struct(text), task
        place = {offset: index + 1 for index, offset in enumerate(offsets)}  # the time comes first
        self._order = tuple(place[one.offset] for one in wanted)
        self._readers = [(index, one.reader) for index, one in enumerate(wanted) if one.reader]
        self._owner = tuple(place[offset] for offset in owner)

    def decode(self, record: bytes) -> Decoded:
        """Decodes one record of the ring."""
        if len(record) != self._size:
            raise ValueError(f"a record of {len(record)} bytes, not {self._size}")
        taken = self._struct.unpack_from(record)
        values = [taken[index] for index in self._order]
        for index, reader in self._readers:
            values[index] = reader(values[index])
        if self._task:
            container, start, pid, tid, comm = _TASK.unpack_from(record, self._task)
            return Decoded(taken[0], container, pid, tid, start, comm.partition(b"\0")[0], tuple(values))
        if len(self._owner) == 1:
            return Decoded(taken[0], taken[self._owner[0]], 0, 0, 0, b"", tuple(values))
        pid, start = (taken[index] for index in self._owner)
        return Decoded(taken[0], 0, pid, 0, start, b"", tuple(values))


def new_decoder(probe: Definition, size: int, shape: Shape) -> Decoder:
    """Returns the decoder of a compiled probe. Raises ProbeError if a field contradicts the YAML."""
    members = {one[0]: _Member(*one[1:]) for one in shape}
    problems: list[Problem] = []
    codes: dict[int, str] = {}
    wanted: list[_Wanted] = []
    for field in probe.fields.values():
        code, reader, complaint = _code(field.kind, members.get(field.name))
        if complaint:
            problems.append(_problem(field.place, f"spec.fields.{field.name}", complaint))
            continue
        offset = _HEAD + members[field.name].offset
        codes[offset] = code
        wanted.append(_Wanted(offset, reader))
    owned = _owned(probe, members, problems)
    if problems:
        raise ProbeError(problems)
    codes |= owned
    task = _HEAD + members["task"].offset if probe.owner.how == "task" else 0
    return Decoder(_HEAD + size, codes, wanted, list(owned), task)


def _owned(probe: Definition, members: Mapping[str, _Member], problems: list[Problem]) -> dict[int, str]:
    """Returns offsets and codes of the fields that identify an event's container."""
    found = {}
    for key, name in (("cgroup", probe.owner.cgroup), ("pid", probe.owner.pid), ("start", probe.owner.start)):
        if not name:
            continue
        code, _, complaint = _code("number", members.get(name))
        if complaint:
            problems.append(_problem(probe.places[key], f"spec.container.{key}", complaint))
        else:
            found[_HEAD + members[name].offset] = code
    return found


def _problem(place: Place, where: str, message: str) -> Problem:
    return Problem(place.file, place.line, place.column, where, message)


def _code(kind: str, member: _Member | None) -> tuple[str, _Reader | None, str]:
    """Returns the struct code and the converter, or the problem."""
    if member is None:
        return "", None, "the struct has no such member"
    if member.size == 0:
        return "", None, "is a bit field, which has no address: use a whole member"
    bytes_code = f"{member.size}s"
    if kind == "number":
        if member.elements or member.type not in _INTEGERS:
            shown = f"{member.type}[{member.elements}]" if member.elements else member.type
            hint = ": say `type: text`" if member.type in _BYTES and member.elements else ""
            return "", None, f"is {shown}, not a number{hint}"
        return _INTEGERS[member.type], int if member.type == "_Bool" else None, ""
    if kind == "text":
        if member.type not in _BYTES or not member.elements:
            return "", None, f"is {member.type}, not a char array: `type: text` reads one"
        return bytes_code, _text, ""
    if member.size not in (4, 16):
        return "", None, f"has {member.size} bytes, and an address has 4 or 16"
    return bytes_code, _address, ""


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _address(raw: bytes) -> str:
    if len(raw) == 16:
        address = ipaddress.IPv6Address(raw)
        return str(address.ipv4_mapped or address)
    return str(ipaddress.IPv4Address(raw))
