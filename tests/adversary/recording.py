# SPDX-License-Identifier: Apache-2.0
"""Verdicts of attacks that are not rows of the table: recorded, and compared with expected.txt."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from tests.adversary.attack import STOPPED, THROUGH
from tests.adversary.expected import is_expected, tier_here

__all__ = ["Record", "judged"]

Record = Callable[[str, object], None]


def judged(record: Record, key: str, how: str, *, through: bool) -> None:
    """Records the verdict (`record`: pytest's record_property) and fails if it is not the expected one."""
    tier = tier_here()
    record("verdict", json.dumps([tier, key, THROUGH if through else STOPPED, how, ""]))
    expected = is_expected(tier, os.environ.get("RINGFENCE_VM", "here"), key)
    assert expected in ("may", "yes" if through else "no"), how
