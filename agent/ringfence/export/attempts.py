# SPDX-License-Identifier: Apache-2.0
"""Attempts by technique, namespace and outcome, for a view of a fleet. Every label is bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric

from ringfence.export.escape import escape

__all__ = ["Attempts"]

_MAX_TECHNIQUES, _MAX_NAMESPACES = 200, 200
OTHER = "other"


class Attempts:
    """Counts verdicts; a verdict of a rule with two techniques counts for both."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._techniques: set[str] = set()
        self._namespaces: set[str] = set()

    def add(self, techniques: Iterable[str], namespace: str | None, outcome: str) -> None:
        """Counts one verdict for a container in this namespace (None or empty: no namespace)."""
        where = _bounded(escape(namespace, 64) if namespace else "", self._namespaces, _MAX_NAMESPACES)
        for technique in techniques:
            self._counts[_bounded(technique, self._techniques, _MAX_TECHNIQUES), where, outcome] += 1

    def add_series(self, technique: str, outcome: str) -> None:
        """Creates a series at 0 without a namespace."""
        self._counts[_bounded(technique, self._techniques, _MAX_TECHNIQUES), "", outcome] += 0

    def collect(self) -> Iterator[Metric]:
        """Yields the metric family of one scrape."""
        family = CounterMetricFamily(
            "ringfence_attempts",
            "Verdicts by ATT&CK technique, namespace and outcome.",
            labels=["technique", "namespace", "outcome"],
        )
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count)
        yield family


def _bounded(value: str, known: set[str], most: int) -> str:
    if value not in known:
        if len(known) >= most:
            return OTHER
        known.add(value)
    return value
