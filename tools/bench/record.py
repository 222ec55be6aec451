# SPDX-License-Identifier: Apache-2.0
"""What a measurement says: rows of figures, the bars they must reach, and how it was done."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Bar", "Measurement", "Row", "as_json", "percentile", "row"]


class Row(NamedTuple):
    """One case. `value` is what is compared; low and high are the spread of `samples`."""

    case: str
    value: float
    unit: str
    low: float
    high: float
    samples: list[float]


class Bar(NamedTuple):
    """A promise: `value` is at most `limit` (or at least, where `least`)."""

    what: str
    value: float
    limit: float
    unit: str
    least: bool = False

    @property
    def ok(self) -> bool:
        """True where the promise holds."""
        return self.value >= self.limit if self.least else self.value <= self.limit


class Measurement(NamedTuple):
    """All that one `measure` found."""

    name: str
    method: str
    rows: list[Row]
    bars: list[Bar]
    notes: list[str] = []  # noqa: RUF012 - never changed


def row(case: str, samples: Sequence[float], unit: str, *, best: bool = True) -> Row:
    """A row of samples. best: their minimum, which other loads disturb least; else the median."""
    value = min(samples) if best else statistics.median(samples)
    return Row(case, value, unit, min(samples), max(samples), [round(one, 3) for one in samples])


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value that `percent` of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def as_json(measurement: Measurement) -> dict[str, Any]:
    """Plain values."""
    return {
        "name": measurement.name,
        "method": measurement.method,
        "rows": [one._asdict() for one in measurement.rows],
        "bars": [{**one._asdict(), "ok": one.ok} for one in measurement.bars],
        "notes": measurement.notes,
    }
