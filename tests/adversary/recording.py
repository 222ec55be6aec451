# SPDX-License-Identifier: Apache-2.0
"""Verdicts of attacks: recorded, and compared with expected.txt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.adversary.attack import STOPPED, THROUGH, Verdict
from tests.adversary.expected import is_expected, tier_here

__all__ = ["MARKS", "Record", "as_expected", "judged", "recorded"]

#: pytest's record_property
Record = Callable[[str, object], None]
#: of every module whose attacks are recorded
MARKS = [
    pytest.mark.root,
    pytest.mark.needs("runc", "gcc"),
    pytest.mark.filterwarnings("ignore:record_property"),
]


def recorded(record: Record, key: str, verdict: Verdict) -> None:
    """Keeps the verdict on an attack with the results of its test."""
    record("verdict", json.dumps([tier_here(), key, *verdict]))


def as_expected(key: str, how: object, *, through: bool) -> None:
    """Fails with `how` if expected.txt says otherwise of the attack."""
    expected = is_expected(tier_here(), os.environ.get("RINGFENCE_VM", "here"), key)
    assert expected in ("may", "yes" if through else "no"), how


def judged(record: Record, key: str, how: str, *, through: bool) -> None:
    """Records the verdict on an attack that has no row and no twin, and compares it."""
    recorded(record, key, Verdict(THROUGH if through else STOPPED, how, ""))
    as_expected(key, how, through=through)
