# SPDX-License-Identifier: Apache-2.0
"""The parser of SEV-SNP reports, on public reports (sources: tests/data/attest/README.md)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.attest.snp_report import SIZE, parse
from ringfence.errors import Error

_DATA = Path(__file__).parents[2] / "data/attest"
_MILAN = (_DATA / "snp-v2-milan.bin").read_bytes()


@pytest.mark.parametrize(
    ("name", "key"), [("snp-v2-milan", "VCEK"), ("snp-test-report", "VCEK"), ("snp-vlek", "VLEK")]
)
def test_a_public_report_names_its_signing_key(name: str, key: str) -> None:
    """The signing key is the one that the source of the report states."""
    assert parse((_DATA / f"{name}.bin").read_bytes()).signing_key == key


@pytest.mark.parametrize(
    ("offset", "length", "field"),
    [(0x50, 64, "report_data"), (0x90, 48, "measurement"), (0xC0, 32, "host_data"),
     (0x180, 8, "reported_tcb"), (0x1A0, 64, "chip_id")],
)  # fmt: skip
def test_a_field_is_at_the_offset_of_the_specification(offset: int, length: int, field: str) -> None:
    """Bytes written at the specification's offset are the value of the field."""
    value = bytes(range(1, length + 1))
    data = _MILAN[:offset] + value + _MILAN[offset + length :]
    assert getattr(parse(data), field) == value


def test_the_debug_bit_is_bit_19_of_the_policy() -> None:
    """The guest policy starts at 08h; bit 19 permits debugging."""
    data = bytearray(_MILAN)
    data[0x0A] |= 1 << 3
    assert parse(bytes(data)).debug


@pytest.mark.parametrize(
    ("data", "word"),
    [(_MILAN[:-1], "1183 bytes"), (_MILAN + b"\0", "1185 bytes"), (b"", "0 bytes"),
     (b"\0\0\0\2" + _MILAN[4:], "version 33554432"), (b"\1" + _MILAN[1:], "version 1"),
     (_MILAN[:0x34] + b"\2" + _MILAN[0x35:], "algorithm 2"),
     (_MILAN[:0x48] + b"\x08" + _MILAN[0x49:], "signing key 2")],
)  # fmt: skip
def test_bad_input_is_refused_with_a_word(data: bytes, word: str) -> None:
    """Truncated, oversized, big-endian and unknown reports are errors, not tracebacks."""
    with pytest.raises(Error, match=word):
        parse(data)


@given(st.binary(max_size=64) | st.binary(min_size=SIZE, max_size=SIZE))
def test_any_bytes_are_a_report_or_an_error(data: bytes) -> None:
    """No input raises anything but Error."""
    with suppress(Error):
        parse(data)
