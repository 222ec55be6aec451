# SPDX-License-Identifier: Apache-2.0
"""Strict JSON by the scanner and encoder in C alone: `json` imports `re`, 3 ms of a start."""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "loads"]

MAX_BYTES = 16 << 20  # a configuration is some 20 kB; a larger one is an attack on memory


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object with unique members: parsers differ in which of two members of one name they take."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"member {twice!r} appears twice in one object")
    return result


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_unique)
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}  # noqa: RUF012


_scan = _json.make_scanner(_Context())  # type: ignore[arg-type]


def loads(data: bytes) -> Any:
    """Decode strict JSON (UTF-8, no duplicate members, no NaN). Raises ValueError with the offset."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes; at most {MAX_BYTES} are read")
    text = data.decode("utf-8").strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"no value at offset {stop.value}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except SystemError:
        # The scanner looks for json.decoder's exception, and sets none where that module is not imported.
        import json

        json.loads(text)
        raise ValueError("malformed") from None
    if end != len(text):
        raise ValueError(f"extra data at offset {end}")
    return value


def _default(value: object) -> object:
    raise TypeError(f"not JSON: {value!r}")


def dumps(value: Any, *, indent: str = "") -> str:
    """Encode as ASCII JSON, so that no text of a container reaches a terminal or a log unescaped.

    Without `indent` it has one line and no blanks, as Go's encoders write it.
    """
    if indent:
        import json  # for output that people read, never on the launch path

        return json.dumps(value, indent=indent)
    escape = _json.encode_basestring_ascii
    encoder = _json.make_encoder(None, _default, escape, None, ":", ",", False, False, False)
    return "".join(encoder(value, 0))
