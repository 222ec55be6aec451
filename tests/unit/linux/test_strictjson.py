# SPDX-License-Identifier: Apache-2.0
"""One reading of a document, or an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ringfence_linux import strictjson

RUNTIME = Path(__file__).resolve().parents[3] / "runtime"


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{} {}", b'{"a":1,"a":2}', b"\xff", b"NaN", b"-Infinity", b"[" * 100000, b'"\n"'],
    ids=repr,
)
def test_what_is_not_strict_json_is_a_value_error(data: bytes) -> None:
    """Also two members of one name, numbers that JSON does not have, and raw control characters."""
    with pytest.raises(ValueError, match=r"."):
        strictjson.loads(data)


def test_an_absurdly_large_file_is_refused() -> None:
    """Before it is decoded."""
    with pytest.raises(ValueError, match="at most"):
        strictjson.loads(b" " * (strictjson.MAX_BYTES + 1))


def test_json_round_trip() -> None:
    """What is written is read, surrogates and control characters included."""
    value = {"a": [1, -2, True, None, "x\n\x1b\u20ac"], "b": {"c": ""}}
    assert strictjson.loads(strictjson.dumps(value).encode()) == value
    assert strictjson.dumps(value).isascii()


def test_only_errors_and_indents_import_json() -> None:
    """The module itself is on the launch path."""
    code = (
        f"import sys; sys.path.insert(0, {str(RUNTIME)!r})\n"
        "from ringfence_linux import strictjson\n"
        "strictjson.loads(strictjson.dumps([1]).encode())\n"
        "print(*sys.modules)"
    )
    argv = [sys.executable, "-ISc", code]
    got = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert {"json", "re", "typing"}.isdisjoint(got.stdout.split())
