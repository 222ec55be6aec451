# SPDX-License-Identifier: Apache-2.0
"""The metrics derived from a probe's events. Written by the loop, read by a scrape: no locks.

A metric has at most `max_series` series; further values are counted with every label `other`. Texts
are truncated to LABEL_MAX characters, as the observed process chooses them. A scrape removes series of
containers that have ended, which frees capacity.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ringfence.policy.probe_rules import Value
from ringfence.probes.definition import Definition, Metric

__all__ = ["LABEL_MAX", "OTHER", "Series", "Tally"]

OTHER = "other"
LABEL_MAX = 200


class Series(NamedTuple):
    """One metric's current state: `rows` maps label values (the container first, if any) to numbers.

    A counter's row is [count or sum]; a histogram's is the counts of its buckets, the overflow, and the sum.
    """

    metric: Metric
    rows: dict[tuple[str, ...], list[float]]


class _Plan(NamedTuple):
    series: Series
    labels: tuple[int, ...]  # positions among the values
    value: int  # position; -1: count events


class Tally:
    """All metrics of one probe."""

    def __init__(self, probe: Definition) -> None:
        position = {name: index for index, name in enumerate(probe.fields)}
        self._plans = [
            _Plan(
                Series(metric, {}),
                tuple(position[name] for name in metric.labels),
                position[metric.value] if metric.value else -1,
            )
            for metric in probe.metrics
        ]

    def observe(self, container: str, values: Sequence[Value]) -> None:
        """Counts one event of a container (its label)."""
        for (metric, rows), labels, index in self._plans:
            key = tuple([str(values[at])[:LABEL_MAX] for at in labels])
            if metric.by_container:
                key = (container, *key)
            row = rows.get(key)
            if row is None:
                row = self._new_row(metric, rows, key)
            if index < 0:
                row[0] += 1
                continue
            amount = float(values[index]) * metric.scale
            if metric.buckets:
                row[bisect_left(metric.buckets, amount)] += 1
                row[-1] += amount
            elif amount > 0:  # a decrease would look like a restart
                row[0] += amount

    @staticmethod
    def _new_row(
        metric: Metric, rows: dict[tuple[str, ...], list[float]], key: tuple[str, ...]
    ) -> list[float]:
        if len(rows) >= metric.max_series:
            key = (OTHER,) * len(key)
            if key in rows:
                return rows[key]
        row = [0.0] * (len(metric.buckets) + 2 if metric.buckets else 1)
        rows[key] = row
        return row

    def take_over(self, before: Tally) -> None:
        """Continues the counts of the probe's previous version for unchanged metrics."""
        for plan in self._plans:
            mine = plan.series.metric
            for series in before:
                if replace(series.metric, place=mine.place) == mine:
                    plan.series.rows.update(series.rows)

    def forget(self, alive: Collection[str]) -> None:
        """Removes series of containers that are not among these labels."""
        for plan in self._plans:
            if plan.series.metric.by_container:
                for key in [key for key in list(plan.series.rows) if key[0] not in alive]:
                    plan.series.rows.pop(key, None)

    def __iter__(self) -> Iterator[Series]:
        return (plan.series for plan in self._plans)
