# SPDX-License-Identifier: Apache-2.0
"""Metrics of custom probes: the state of each, and those that its YAML derives from its events."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ringfence.export.escape import escape
from ringfence.export.families import counters
from ringfence.probes.tally import LABEL_MAX, Series, Tally

__all__ = ["CUSTOM", "ProbeRow", "probe_metrics"]

_ESCAPED_MOST = 10  # characters that one character becomes: \\U0010ffff
#: prefix of the names of derived metrics
CUSTOM = "ringfence_custom_"


class ProbeRow(NamedTuple):
    """One probe at a scrape. `tally` None: it does not run."""

    name: str
    running: bool
    load_seconds: float = 0.0
    emitted: int = 0
    received: int = 0
    dropped: Mapping[str, int] = {}
    tally: Tally | None = None


def probe_metrics(
    rows: Iterable[ProbeRow], loads: Mapping[str, int], alive: Collection[str]
) -> Iterator[Metric]:
    """All families. `alive`: the labels of containers that may have series."""
    up = GaugeMetricFamily("ringfence_probe_up", "1 while a custom probe runs.", labels=["probe"])
    seconds = GaugeMetricFamily(
        "ringfence_probe_load_seconds",
        "Time that compiling and attaching a custom probe took.",
        labels=["probe"],
    )
    families = {
        "emitted": CounterMetricFamily(
            "ringfence_probe_events_emitted",
            "Events that the programs of a custom probe sent.",
            labels=["probe"],
        ),
        "received": CounterMetricFamily(
            "ringfence_probe_events", "Events of a custom probe that the agent received.", labels=["probe"]
        ),
    }
    dropped = CounterMetricFamily(
        "ringfence_probe_events_dropped",
        "Events of a custom probe that were left out or lost, by reason.",
        labels=["probe", "reason"],
    )
    tallies = []
    for row in rows:
        name = escape(row.name)  # the name of a file, so it may be anything
        up.add_metric([name], row.running)
        if row.tally is None:
            continue
        seconds.add_metric([name], row.load_seconds)
        families["emitted"].add_metric([name], row.emitted)
        families["received"].add_metric([name], row.received)
        for reason, count in row.dropped.items():
            dropped.add_metric([name, reason], count)
        tallies.append(row.tally)
    loaded = counters("ringfence_probe_loads", "Attempts to load a custom probe, by result.", "result", loads)
    yield from (up, seconds, *families.values(), dropped, loaded)
    for tally in tallies:
        tally.forget(alive)
        yield from map(_derived, tally)


def _derived(series: Series) -> Metric:
    metric = series.metric
    labels = [*(["container"] if metric.by_container else []), *metric.labels]
    if not metric.buckets:
        counter = CounterMetricFamily(CUSTOM + metric.name, metric.help, labels=labels)
        for key, row in list(series.rows.items()):
            counter.add_metric(_shown(key), row[0])
        return counter
    histogram = HistogramMetricFamily(CUSTOM + metric.name, metric.help, labels=labels)
    for key, row in list(series.rows.items()):
        pairs, so_far = [], 0.0
        for bound, count in zip((*map(str, metric.buckets), "+Inf"), row[:-1], strict=True):
            so_far += count
            pairs.append((bound, so_far))
        histogram.add_metric(_shown(key), pairs, row[-1])
    return histogram


def _shown(key: tuple[str, ...]) -> list[str]:
    """Labels are never cut here: two series must not get the same name."""
    return [escape(value, LABEL_MAX * _ESCAPED_MOST) for value in key]
