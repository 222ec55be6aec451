# SPDX-License-Identifier: Apache-2.0
"""Every table of the Python mirror says what the compiler says, and the comparison itself can fail."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence import abi, wire
from ringfence.abi import Field, Layout
from tests.abi.btf import Btf

INCLUDE = Path(__file__).resolve().parents[2] / "probes" / "include"
HEADERS = (
    "events.h",
    "config.h",
    "containers.h",
    "emit.h",
    "guard.h",
    "learn.h",
    "rules.h",
    "syscalls.h",
    "tasks.h",
    "usermode_helper.h",
)
ALL = (wire.HEADER, wire.OBJECT, *wire.RECORDS, *abi.LAYOUTS)
ENUMS: dict[str, tuple[type[enum.IntEnum] | type[enum.IntFlag], str]] = {
    "rf_event": (abi.EventKind, "RF_"),
    "rf_action": (abi.Action, "RF_ACTION_"),
    "rf_mechanism": (abi.Mechanism, "RF_MECHANISM_"),
    "rf_fact": (abi.Fact, "RF_FACT_"),
    "rf_drop": (abi.Drop, "RF_DROP_"),
    "rf_operand_source": (abi.OperandSource, "RF_FROM_"),
    "rf_relation": (abi.Relation, "RF_RELATION_"),
    "rf_counter": (abi.Counter, "RF_COUNT_"),
    "rf_tamper": (abi.Tamper, "RF_TAMPER_"),
}
RENAMED = {"EVENT_NONE": "NONE"}
PRIVATE = {"rf_last_call", "rf_armed", "rf_identity", "rf_memo"}  # in maps that only the probes read
NOT_MEMBERS = {"EVENT_MAX", "MAX"}


def source() -> str:
    """All of them."""
    return "".join((INCLUDE / name).read_text() for name in HEADERS)


@pytest.mark.parametrize("layout", ALL, ids=lambda layout: layout.ctype)
def test_layout_is_the_struct(btf: Btf, layout: Layout) -> None:
    """Names, order, offsets, sizes and types agree, and no hole is without a name."""
    assert btf.differences(layout) == []


def test_every_struct_of_the_headers_has_a_layout() -> None:
    """A struct that is added in C is noticed here."""
    in_c = set(re.findall(r"^struct (rf_\w+) \{", source(), re.M))
    in_c = {name for name in in_c if not name.startswith("rf_generation_")}  # shapes of maps
    in_c -= PRIVATE
    assert {layout.ctype for layout in ALL} == in_c


@pytest.mark.parametrize("name", ENUMS)
def test_enum_has_the_same_members(btf: Btf, name: str) -> None:
    """No member is missing on either side, and none has another value."""
    mirror, prefix = ENUMS[name]
    in_c = {member.removeprefix(prefix): value for member, value in btf.enum(name).items()}
    in_c = {RENAMED.get(member, member): value for member, value in in_c.items() if member not in NOT_MEMBERS}
    assert {member.name: member.value for member in mirror} == in_c


def test_event_numbers_fit(btf: Btf) -> None:
    """RF_EVENT_MAX bounds the maps that are indexed by event."""
    assert btf.enum("rf_event")["RF_EVENT_MAX"] == abi.EVENT_MAX


def test_constants_are_the_defines() -> None:
    """Each `#define RF_X n` that Python knows has the same value there."""
    defines = dict(re.findall(r"^#define RF_(\w+)\s+([^/\n]+?)\s*(?:/\*.*)?$", source(), re.M))
    known = {name: value for name, value in defines.items() if isinstance(getattr(abi, name, None), int)}
    assert len(known) > 30
    for name, text in known.items():
        resolved = text
        for _ in range(3):
            resolved = re.sub(r"\bRF_(\w+)", lambda match: f"({defines[match[1]]})", resolved)
        assert eval(resolved, {}) == getattr(abi, name), name


def test_every_event_has_a_record() -> None:
    """Each kind can be encoded and comes back as the class of its layout."""
    for kind in abi.EventKind:
        if kind:
            event = wire.make(kind)
            decoded = wire.decode(wire.encode(event))
            assert decoded == event
            assert type(decoded) is type(event)


def test_tuples_have_the_fields_of_their_layout() -> None:
    """A record is unpacked into its class by position, so the names must be in the same order."""
    for layout, event_class in wire.RECORDS.items():
        assert layout.names == event_class._fields


def swapped(fields: list[Field]) -> list[Field]:
    """Two neighbours of the same size change places: no size and no offset tells."""
    return [fields[0], fields[2], fields[1], *fields[3:]]


def shrunk(fields: list[Field]) -> list[Field]:
    """The text at the end loses eight bytes."""
    return [*fields[:-1], Field(fields[-1].name, fields[-1].type, fields[-1].count - 8)]


def holed(fields: list[Field]) -> list[Field]:
    """The C has a member where Python has nothing."""
    return [*fields[:-2], *fields[-1:]]


def grown(fields: list[Field]) -> list[Field]:
    """Python has a member where the C has nothing."""
    return [*fields, Field("pad2", "u64")]


def widened(fields: list[Field]) -> list[Field]:
    """Two u32 as one u64 of the first one's name: the sizes agree, the members do not."""
    return [*fields[:3], Field(fields[3].name, "u64"), *fields[5:]]


def signed(fields: list[Field]) -> list[Field]:
    """The size agrees, the sign does not."""
    return [*fields[:3], Field(fields[3].name, "s32"), *fields[4:]]


@pytest.mark.parametrize("mutate", [swapped, shrunk, holed, grown, widened, signed])
def test_comparison_notices(btf: Btf, mutate: Callable[[list[Field]], list[Field]]) -> None:
    """A swap, a hole, a changed size or type in a table is found: the test above is not blind."""
    good = Layout(
        "rf_file_event",
        *wire.FILE_EVENT.fields,
    )
    assert btf.differences(good) == []
    assert btf.differences(Layout("rf_file_event", *mutate(list(good.fields)))) != []


def test_comparison_notices_a_hole_in_c() -> None:
    """A struct whose members leave a gap is refused even when Python leaves the same gap."""
    u32 = {"id": 1, "kind": "INT", "name": "unsigned int", "size": 4, "encoding": "(none)"}
    u64 = {"id": 2, "kind": "INT", "name": "unsigned long long", "size": 8, "encoding": "(none)"}
    members = [{"name": "a", "type_id": 1, "bits_offset": 0}, {"name": "b", "type_id": 2, "bits_offset": 64}]
    struct = {"id": 3, "kind": "STRUCT", "name": "rf_x", "size": 16, "members": members}
    layout = Layout("rf_x", Field("a", "u32"), Field("b", "u64"))
    assert any("hole of 4 bytes" in difference for difference in Btf([u32, u64, struct]).differences(layout))
