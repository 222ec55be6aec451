# SPDX-License-Identifier: Apache-2.0
"""Observed text: any text that a container chose becomes one harmless line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.export.escape import arguments, escape


@pytest.mark.parametrize(
    ("observed", "shown"),
    [
        (b"/bin/sh", "/bin/sh"),
        (b"a\nb", "a\\nb"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("caf\u00e9".encode(), "caf\u00e9"),
        ("\u202egnp.exe".encode(), "\\u202egnp.exe"),
        (b"back\\slash", "back\\\\slash"),
        ("line\u2028separator", "line\\u2028separator"),
        ("lone \udcff surrogate", "lone \\xff surrogate"),
        (b"\xc2\x9b31m", "\\u009b31m"),
        (b"", ""),
    ],
)
def test_known_tricks_become_visible(observed: bytes | str, shown: str) -> None:
    """Newlines, escape codes, direction overrides, invalid UTF-8 and C1 codes are written out."""
    assert escape(observed) == shown


@given(st.binary(max_size=300))
def test_the_result_is_always_one_printable_line_that_encodes(data: bytes) -> None:
    """No byte string makes text that is not printable, or that UTF-8 cannot carry."""
    shown = escape(data)
    assert shown.isprintable()
    shown.encode()


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_different_texts_stay_different(one: bytes, other: bytes) -> None:
    """No name is shown like the escape of another one."""
    assert (escape(one) == escape(other)) == (one == other)


@given(st.binary(max_size=5000), st.integers(1, 200))
def test_the_length_is_bounded(data: bytes, limit: int) -> None:
    """4,096 bytes of name make no line longer than the limit, and the cut shows."""
    shown = escape(data, limit)
    assert len(shown) <= limit
    assert len(data) <= limit * 4 or shown.endswith("…")


def test_arguments_are_split_at_nul_and_bounded_together() -> None:
    """argv is NUL separated; a thousand words end in an ellipsis."""
    assert arguments(b"sh\0-c\0echo 'x\n'") == ["sh", "-c", "echo 'x\\n'"]
    many = arguments(b"\0".join([b"word"] * 1000), 50)
    assert many[-1] == "…"
    assert sum(map(len, many)) < 60
