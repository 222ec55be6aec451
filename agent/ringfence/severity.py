# SPDX-License-Identifier: Apache-2.0
"""The five severities, their order, and their comparison."""

from __future__ import annotations

from typing import Any

__all__ = ["SEVERITIES", "at_least", "number_of"]

#: in ascending order; policies, alerts, the audit and every filter use these words
SEVERITIES = ("info", "low", "medium", "high", "critical")


def number_of(severity: Any) -> int:
    """Returns 1 (info) to 5 (critical); an unknown word counts as high."""
    return SEVERITIES.index(severity) + 1 if severity in SEVERITIES else SEVERITIES.index("high") + 1


def at_least(severity: Any, least: str) -> bool:
    """Returns True if the severity is `least` or higher, or unknown: a filter must not drop unknown words."""
    return severity not in SEVERITIES or SEVERITIES.index(severity) >= SEVERITIES.index(least)
