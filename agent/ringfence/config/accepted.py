# SPDX-License-Identifier: Apache-2.0
"""Parses `audit.accept`: findings of the audit that are accepted, each with a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Acceptance", "acceptances"]

_KEYS = ("check", "names", "reason")
_CHECK = re.compile(r"[a-z][a-z0-9-]{1,40}")
_MOST = 200


class Acceptance(NamedTuple):
    """`names` is a pattern (* ? []) of NAMESPACE/POD/CONTAINER, or of the node's name."""

    check: str
    names: str
    reason: str


def acceptances(value: Any) -> tuple[Acceptance, ...]:
    """A list of `{check: ID, names: PATTERN, reason: TEXT}`, or of `ID PATTERN TEXT`."""
    items = value if isinstance(value, list) else [value]
    if len(items) > _MOST:
        raise ValueError(f"at most {_MOST} findings")
    return tuple(map(_acceptance, items))


def _acceptance(item: Any) -> Acceptance:
    if isinstance(item, str):
        words = item.split(None, 2)
        item = dict(zip(_KEYS, words, strict=False))
    if not isinstance(item, Mapping) or set(item) != set(_KEYS):
        raise ValueError("expected `check`, `names` and `reason` of an accepted finding")
    check, names, reason = (item[key] for key in _KEYS)
    if not isinstance(check, str) or not _CHECK.fullmatch(check):
        raise ValueError(f"{str(check)[:80]!r} is not the id of a check, such as 'host-root'")
    for key, text in (("names", names), ("reason", reason)):
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text.strip()) <= 256:
            raise ValueError(f"{key}: expected one line of 1 to 256 characters")
    return Acceptance(check, names, reason)
