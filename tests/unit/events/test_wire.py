# SPDX-License-Identifier: Apache-2.0
"""Records are decoded to events or DecodeErrors, whatever their bytes."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence import wire
from ringfence.abi import ABI_VERSION, EVENT_MAX, EventKind
from ringfence.events import ExecEvent, FileEvent, SyscallEvent

KINDS = [kind for kind in EventKind if kind]
EXAMPLES = 20_000 if os.environ.get("RINGFENCE_FUZZ") else 300


def exec_record() -> bytearray:
    """A record to damage."""
    event = wire.make(
        EventKind.PROCESS_EXEC, pid=7, comm=b"sh", path=b"/bin/sh", args=b"sh\0-c\0", exe_hash=2**64 - 1
    )
    return bytearray(wire.encode(event))


def test_fields_are_decoded_as_they_were_packed() -> None:
    """Numbers keep their width and sign, texts their bytes."""
    event = wire.decode(exec_record())
    assert isinstance(event, ExecEvent)
    assert (event.kind, event.pid, event.exe_hash) == (EventKind.PROCESS_EXEC, 7, 2**64 - 1)
    assert (event.comm, event.path, event.args) == (b"sh", b"/bin/sh", b"sh\0-c")
    opened = wire.decode(wire.encode(wire.make(EventKind.FILE_OPEN, fd=-1)))
    assert isinstance(opened, FileEvent)
    assert opened.fd == -1


def test_system_call_arguments_and_operands_are_separate() -> None:
    """Six arguments, then four operands, each in its place."""
    numbers = {f"args{n}": 10 + n for n in range(6)} | {f"operand{n}": 20 + n for n in range(4)}
    event = wire.decode(wire.encode(wire.make(EventKind.SYS_MOUNT, text=b"proc", **numbers)))
    assert isinstance(event, SyscallEvent)
    assert event.args == (10, 11, 12, 13, 14, 15)
    assert event.operands == (20, 21, 22, 23)
    assert event.text == b"proc"


def test_strings_are_a_part_of_the_records_that_have_them() -> None:
    """A call's record ends before them, or has both; each is bounded by its own length."""
    short = wire.make(EventKind.SYS_MOUNT, text=b"ext4")
    event = wire.make(EventKind.SYS_MOUNT, text=b"ext4", second=b"/dev/sda1", third=b"/mnt")
    assert isinstance(event, SyscallEvent)
    record = wire.encode(event)
    assert len(record) - len(wire.encode(short)) == 2 * 4 + 2 * 256
    assert wire.decode(record) == event
    assert event.strings == (b"ext4", b"/dev/sda1", b"/mnt")
    assert wire.decode(wire.encode(short)).strings == (b"ext4", b"", b"")  # type: ignore[union-attr]
    for name in ("text_len", "second_len", "third_len"):
        full = event._replace(**{name: 256})  # type: ignore[arg-type]
        assert wire.decode(wire.encode(full)) == full
        with pytest.raises(wire.DecodeError) as caught:
            wire.decode(wire.encode(full._replace(**{name: 257})))  # type: ignore[arg-type]
        assert caught.value.reason == "length"


def test_only_a_call_has_strings() -> None:
    """A record of another kind is not read as one, whatever its size."""
    record = bytearray(wire.encode(wire.make(EventKind.SYS_MOUNT, third=b"x")))
    record[0:2] = EventKind.FILE_OPEN.to_bytes(2, "little")
    with pytest.raises(wire.DecodeError) as caught:
        wire.decode(record)
    assert caught.value.reason == "size"


@pytest.mark.parametrize("view", [bytes, bytearray, memoryview])
def test_any_buffer_is_decoded(view: type) -> None:
    """Bytes, a bytearray or a view of a ring: the same event."""
    assert wire.decode(view(bytes(exec_record()))) == wire.decode(exec_record())


@pytest.mark.parametrize("length", [0, 1, 3])
def test_less_than_a_header_is_short(length: int) -> None:
    """Nothing is read beyond the end."""
    with pytest.raises(wire.DecodeError) as caught:
        wire.decode(bytes(length))
    assert caught.value.reason == "short"


@pytest.mark.parametrize("kind", [0, 12, EVENT_MAX - 1, EVENT_MAX, 0xFFFF])
def test_unknown_kind_is_refused(kind: int) -> None:
    """Also numbers in the gaps of the enum, and those beyond its end."""
    record = exec_record()
    record[0:2] = kind.to_bytes(2, "little")
    with pytest.raises(wire.DecodeError) as caught:
        wire.decode(record)
    assert caught.value.reason == "kind"


def test_another_abi_version_is_refused() -> None:
    """Probes of another build are not misread."""
    record = exec_record()
    record[2] = ABI_VERSION + 1
    with pytest.raises(wire.DecodeError) as caught:
        wire.decode(record)
    assert caught.value.reason == "version"


@pytest.mark.parametrize("change", [-1, 1, -8, 8])
def test_size_must_be_exact(change: int) -> None:
    """A record is as long as its struct, to the byte."""
    record = exec_record()
    resized = record[:change] if change < 0 else record + bytes(change)
    with pytest.raises(wire.DecodeError) as caught:
        wire.decode(resized)
    assert caught.value.reason == "size"


@pytest.mark.parametrize("field", ["path_len", "args_len"])
def test_length_beyond_the_array_is_refused(field: str) -> None:
    """A length is accepted up to the size of the array; exactly full is valid."""
    full = wire.make(EventKind.PROCESS_EXEC)._replace(**{field: 256})  # type: ignore[arg-type]
    assert wire.decode(wire.encode(full)) == full
    with pytest.raises(wire.DecodeError) as caught:
        wire.decode(wire.encode(full._replace(**{field: 257})))  # type: ignore[arg-type]
    assert caught.value.reason == "length"


def read_everything(record: bytes) -> None:
    """Decode, and read every text: only DecodeError may be raised."""
    try:
        event = wire.decode(record)
    except wire.DecodeError:
        return
    for name in ("kind", "comm", "path", "args", "name", "text", "address", "operands"):
        getattr(event, name, None)
    assert wire.decode(wire.encode(event)) == event


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=1024))
def test_fuzz_arbitrary_bytes(record: bytes) -> None:
    """Any bytes give an event or a DecodeError."""
    read_everything(record)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_fuzz_damaged_records(kind: EventKind, data: st.DataObject) -> None:
    """Records of the right kind and length, with random
    contents, reach the code behind the bounds checks.
    """
    size = len(wire.encode(wire.make(kind)))
    body = data.draw(st.binary(min_size=size - 3, max_size=size - 3))
    read_everything(kind.to_bytes(2, "little") + bytes([ABI_VERSION]) + body)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 2**64 - 1), st.binary(max_size=16))
def test_fuzz_round_trip(kind: EventKind, number: int, text: bytes) -> None:
    """A record that is made, packed and decoded is unchanged."""
    event = wire.make(kind, time_ns=number, comm=text)
    decoded = wire.decode(wire.encode(event))
    assert decoded == event
    assert decoded.comm == text.partition(b"\0")[0]
