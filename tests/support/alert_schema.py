# SPDX-License-Identifier: Apache-2.0
"""The published schema of alert and event lines, as the tests read it: a field that it does not list is
an error, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["SCHEMA", "check", "problems"]

SCHEMA = Path(__file__).resolve().parents[2] / "docs/reference/alert.schema.json"


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **found} if "required" in found else found


def _kind(word: str) -> dict[str, Any]:
    return {"properties": {"kind": {"const": word}}}


@cache
def _validator() -> Draft202012Validator:
    document = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(document)
    kinds = document.pop("oneOf")
    # By the kind of the line: `oneOf` would report that it is none of three.
    names = ("alert", "event", "identity")
    assert [one["$ref"].rpartition("/")[2] for one in kinds] == list(names)
    identity = {"if": _kind("identity"), "then": kinds[2], "else": kinds[1]}
    chosen = {"if": _kind("alert"), "then": kinds[0], "else": identity}
    return Draft202012Validator({**_closed(document), **chosen})


def problems(record: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with a line; empty: nothing."""
    return [f"{error.json_path}: {error.message[:200]}" for error in _validator().iter_errors(record)]


def check(record: Mapping[str, Any]) -> None:
    """Raises AssertionError if a line is not as published."""
    found = problems(record)
    assert not found, (found, record)
