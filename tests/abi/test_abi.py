# SPDX-License-Identifier: Apache-2.0
"""The Python side of the ABI is what the compiler says, and the generator refuses what it cannot express."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ringfence import abi, events, wire
from ringfence.abi.records import RECORD_LAYOUTS
from tests.abi.conftest import ROOT
from tools.abi import OBJECTS, TARGET, Btf, constants, current

INCLUDE = ROOT / "probes" / "include"
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
    "trees.h",
    "usermode_helper.h",
)
PRIVATE = {"rf_last_call", "rf_armed", "rf_identity", "rf_memo"}  # in maps that only the probes read
U32 = {"id": 1, "kind": "INT", "name": "unsigned int", "size": 4, "encoding": "(none)"}
U64 = {"id": 2, "kind": "INT", "name": "unsigned long long", "size": 8, "encoding": "(none)"}
POINTER = {"id": 3, "kind": "PTR", "name": "(anon)", "type_id": 1}


def source() -> str:
    """All of the headers that probes and agent share."""
    return "".join((INCLUDE / name).read_text() for name in HEADERS)


@pytest.mark.usefixtures("compiled")
def test_the_committed_files_are_what_the_probes_give() -> None:
    """Names, order, offsets, sizes, types and numbers; `make abi` writes them."""
    for name, text in current().items():
        assert (TARGET / name).read_text() == text, name


@pytest.mark.usefixtures("compiled")
def test_every_struct_and_enum_of_the_headers_is_held() -> None:
    """One that is added in C and forgotten in abi_check.bpf.c is noticed here."""
    held = Btf(OBJECTS / "abi_check.bpf.o")
    structs = set(re.findall(r"^struct (rf_\w+) \{", source(), re.M))
    structs = {name for name in structs if not name.startswith("rf_generation_")}  # shapes of maps
    assert set(held.structs()) == structs - PRIVATE
    enums = {name for name, _ in held.enums() if not name.startswith("abi_")}
    assert enums == set(re.findall(r"^enum (rf_\w+) \{", source(), re.M))


def test_numbers_without_an_enum_are_not_shared() -> None:
    """A `#define` of a shared header is no constant of Python, but for those of 64 bits."""
    defines = re.findall(r"^#define RF_(\w+)\s+[\dx(]", source(), re.M)
    known = {name for name in defines if isinstance(getattr(abi, name, None), int)}
    assert known <= {name for name in known if getattr(abi, name) >> 32}


def test_every_event_has_a_record() -> None:
    """Each kind can be encoded and comes back as the class of its layout."""
    for kind in abi.EventKind:
        if kind:
            event = wire.make(kind)
            decoded = wire.decode(wire.encode(event))
            assert decoded == event
            assert type(decoded) is type(event)


def test_every_record_has_a_class() -> None:
    """Of its fields, in their order: a record is unpacked into its class by position."""
    assert {kind.__bases__[0] for kind in events.RECORDS} == set(RECORD_LAYOUTS)
    assert set(events.RECORDS) == set(events.Event.__args__)
    for layout, event_class in wire.RECORDS.items():
        assert layout.names == event_class._fields


def test_events_fit_the_maps_that_they_index() -> None:
    """RF_EVENT_MAX bounds these maps."""
    assert max(abi.EventKind) < abi.EVENT_MAX


def btf_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *members: tuple[str, int, int], size: int) -> Btf:
    """The BTF of one struct rf_x, with (name, type, offset in bits) of each member."""
    entry: dict[str, Any] = {"id": 4, "kind": "STRUCT", "name": "rf_x", "size": size}
    entry["members"] = [{"name": name, "type_id": type, "bits_offset": at} for name, type, at in members]
    monkeypatch.setattr("tools.abi.dump", lambda path: [U32, U64, POINTER, entry])
    return Btf(tmp_path)


def test_a_struct_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of these tests fail for their reason alone."""
    btf = btf_of(tmp_path, monkeypatch, ("a", 1, 0), ("b", 1, 32), ("c", 2, 64), size=16)
    assert [member.type for member in btf.members("rf_x")] == ["u32", "u32", "u64"]


def test_a_hole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a struct, where it would hold old memory of the ring."""
    with pytest.raises(ValueError, match="a hole before b"):
        btf_of(tmp_path, monkeypatch, ("a", 1, 0), ("b", 2, 64), size=16).members("rf_x")


def test_a_hole_at_the_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As well."""
    with pytest.raises(ValueError, match="a hole at its end"):
        btf_of(tmp_path, monkeypatch, ("a", 2, 0), ("b", 1, 64), size=16).members("rf_x")


def test_a_pointer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of the kernel has no place in a record."""
    with pytest.raises(ValueError, match="no integer"):
        btf_of(tmp_path, monkeypatch, ("a", 3, 0), size=8).members("rf_x")


def test_long_constants_are_put_together() -> None:
    """From two halves, as BTF has 32 bits of each."""
    halves = {"abi_high_RF_X": 0xFFFFFFFF, "abi_low_RF_X": 2}
    assert "".join(constants("abi_RF_X", halves)) == "X = 0xFFFFFFFF00000002\n"
