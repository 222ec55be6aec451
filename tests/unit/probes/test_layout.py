# SPDX-License-Identifier: Apache-2.0
"""Records of probes: members are read at the compiled struct's offsets, in the order of the YAML."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import ProbeError
from ringfence.policy.model import Place
from ringfence.probes.definition import Owner
from ringfence.probes.layout import new_decoder
from tests.unit.probes.documents import definition, field

TASK = ("task", "struct rf_task", 0, 40, 0)
SHAPE = (
    TASK,
    ("peer", "unsigned char", 40, 16, 16),
    ("disk", "char", 56, 8, 8),
    ("latency_us", "unsigned long long", 64, 8, 0),
    ("cpu", "int", 72, 4, 0),
)
SIZE = 80


def record(time: int, container: int, start: int, pid: int, tid: int, comm: bytes, *rest: object) -> bytes:
    """Pack as ringfence.h lays it out: the time, then the struct."""
    return struct.pack("=QQQII16s16s8sQi4x", time, container, start, pid, tid, comm, *rest)


def test_members_are_in_the_order_of_the_yaml() -> None:
    """Not in that of the struct; text ends at its NUL, addresses are words."""
    decoder = new_decoder(definition(), SIZE, SHAPE)
    peer = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 7])
    got = decoder.decode(record(5, 77, 99, 42, 43, b"cat\0junk", peer, b"sda\0\xff", 1234, -1))
    assert got.values == (1234, "sda", "10.0.0.7")
    assert got[:6] == (5, 77, 42, 43, 99, b"cat")


def test_a_cgroup_or_a_process_can_own_an_event() -> None:
    """By members that are not exported by the agent."""
    places = {"event": Place("x", 1), "cgroup": Place("x", 2), "pid": Place("x", 3), "start": Place("x", 4)}
    shape = (
        ("a", "unsigned long long", 0, 8, 0),
        ("b", "unsigned int", 8, 4, 0),
        ("n", "unsigned char", 12, 1, 0),
    )
    fields = {"n": field("n")}
    owner = Owner("cgroup", cgroup="a")
    got = new_decoder(definition(fields=fields, owner=owner, places=places), 16, shape)
    assert got.decode(struct.pack("=QQIB3x", 1, 2, 3, 4))[:2] == (1, 2)
    owner = Owner("process", pid="b", start="a")
    got = new_decoder(definition(fields=fields, owner=owner, places=places), 16, shape)
    decoded = got.decode(struct.pack("=QQIB3x", 1, 2, 3, 4))
    assert (decoded.container, decoded.pid, decoded.start_ns, decoded.values) == (0, 3, 2, (4,))


@pytest.mark.parametrize(
    ("name", "kind", "shape", "message"),
    [
        ("disk", "number", ("disk", "char", 56, 8, 8), "is char[8], not a number: say `type: text`"),
        ("latency_us", "text", ("latency_us", "unsigned int", 64, 4, 0), "is unsigned int, not a char array"),
        ("peer", "ip", ("peer", "unsigned short", 40, 2, 0), "has 2 bytes, and an address has 4 or 16"),
        ("inner", "number", ("inner", "struct other", 40, 8, 0), "is struct other, not a number"),
        ("flag", "number", ("flag", "bits", 40, 0, 0), "is a bit field"),
        ("gone", "number", ("other", "int", 40, 4, 0), "the struct has no such member"),
    ],
)
def test_a_member_of_another_type_is_reported_at_the_field(
    name: str, kind: str, shape: tuple[str, str, int, int, int], message: str
) -> None:
    """With the place in the YAML."""
    probe = definition(fields={name: field(name, kind, line=12)})
    with pytest.raises(ProbeError) as caught:
        new_decoder(probe, SIZE, (TASK, shape))
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.where) == ("p/slow.yaml", 12, f"spec.fields.{name}")
    assert problem.message.startswith(message)


@given(st.binary(max_size=200) | st.binary(min_size=SIZE + 8, max_size=SIZE + 8))
def test_fuzz_no_record_raises_anything_else(data: bytes) -> None:
    """A record of another size is a ValueError, any other is decoded."""
    decoder = new_decoder(definition(), SIZE, SHAPE)
    if len(data) == SIZE + 8:
        assert len(decoder.decode(data).values) == 3
    else:
        with pytest.raises(ValueError):
            decoder.decode(data)


@given(st.binary(min_size=SIZE + 8, max_size=SIZE + 8))
def test_fuzz_any_bytes_of_the_right_size_decode(data: bytes) -> None:
    """Whatever a probe sends."""
    values = new_decoder(definition(), SIZE, SHAPE).decode(data).values
    assert isinstance(values[0], int)
    assert isinstance(values[1], str)
