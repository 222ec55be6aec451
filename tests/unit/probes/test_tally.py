# SPDX-License-Identifier: Apache-2.0
"""Derived metrics: sums, buckets, and a bound on their number."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from ringfence.export.exposition import exposition
from ringfence.export.probe_metrics import ProbeRow, probe_metrics
from ringfence.probes.tally import Tally
from tests.unit.probes.documents import definition, metric

BUCKETS = {"type": "histogram", "value": "latency_us", "scale": 1e-6, "buckets": (0.1, 1.0)}


def rows(tally: Tally, which: int = 0) -> dict[tuple[str, ...], list[float]]:
    """The series of one metric."""
    return list(tally)[which].rows


def test_counters_count_and_add_up() -> None:
    """Events, and a field's values times the scale."""
    tally = Tally(
        definition(metrics=(metric("n"), metric("s", value="latency_us", scale=0.5, by_container=False)))
    )
    for amount in (10, 20):
        tally.observe("c1", (amount, "sda", "::"))
    assert rows(tally, 0) == {("c1",): [2]}
    assert rows(tally, 1) == {(): [15]}


def test_a_counter_never_decreases() -> None:
    """A negative value would look like a restart to Prometheus."""
    tally = Tally(definition(metrics=(metric("s", value="latency_us"),)))
    tally.observe("c1", (5, "", ""))
    tally.observe("c1", (-7, "", ""))
    assert rows(tally) == {("c1",): [5]}


def test_a_histogram_has_buckets_an_overflow_and_a_sum() -> None:
    """A bound belongs to its own bucket."""
    tally = Tally(definition(metrics=(metric("h", labels=("disk",), **BUCKETS),)))
    for micros in (100_000, 100_001, 5_000_000):
        tally.observe("c1", (micros, "sda", ""))
    (row,) = rows(tally).values()
    assert row[:3] == [1, 1, 1]
    assert abs(row[3] - 5.200001) < 1e-9


def test_series_beyond_the_bound_are_summed() -> None:
    """Two have their own series, every other value is `other`; nothing is lost."""
    tally = Tally(definition(metrics=(metric("n", labels=("disk",), max_series=2),)))
    for number in range(10):
        tally.observe("c1", (0, f"disk{number}", ""))
    assert rows(tally) == {("c1", "disk0"): [1], ("c1", "disk1"): [1], ("other", "other"): [8]}


def test_series_of_removed_containers_are_freed() -> None:
    """The sum of the others stays."""
    tally = Tally(definition(metrics=(metric("n", max_series=1),)))
    for name in ("c1", "c2"):
        tally.observe(name, (0, "", ""))
    tally.forget({"c2", "other"})
    tally.observe("c3", (0, "", ""))
    assert rows(tally) == {("other",): [2]}
    tally.forget({"c3"})
    tally.observe("c3", (0, "", ""))
    assert rows(tally) == {("c3",): [1]}


def test_a_new_version_continues_counting() -> None:
    """Where the metric is the same; a changed one starts from zero."""
    before = Tally(definition(metrics=(metric("n"), metric("s", value="latency_us"))))
    before.observe("c1", (5, "", ""))
    after = Tally(definition(metrics=(metric("n"), metric("s", value="latency_us", scale=2.0))))
    after.take_over(before)
    after.observe("c1", (5, "", ""))
    assert rows(after, 0) == {("c1",): [2]}
    assert rows(after, 1) == {("c1",): [10]}


class _Scraped(Collector):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self):  # type: ignore[no-untyped-def]
        row = ProbeRow("io", True, 0.8, 5, 5, {"rate_limit": 3}, self._tally)
        return probe_metrics([row], {"loaded": 1}, {"c1"})


def test_prometheus_reads_them() -> None:
    """Names, labels, escaped text, cumulative buckets."""
    tally = Tally(definition(metrics=(metric("h", labels=("disk",), **BUCKETS),)))
    tally.observe("c1", (50_000, "a\x1bb", ""))
    tally.observe("c1", (500_000, "a\x1bb", ""))
    registry = CollectorRegistry()
    registry.register(_Scraped(tally))
    text = generate_latest(registry).decode()
    assert 'ringfence_custom_h_bucket{container="c1",disk="a\\\\x1bb",le="1.0"} 2.0' in text
    assert 'ringfence_custom_h_count{container="c1",disk="a\\\\x1bb"} 2.0' in text
    assert 'ringfence_probe_events_dropped_total{probe="io",reason="rate_limit"} 3.0' in text


def test_texts_with_a_long_common_prefix_are_one_series_and_use_little_memory() -> None:
    """The observed process chooses the texts.

    Truncated texts must not become two series with the same labels, which Prometheus rejects.
    """
    probe = definition(metrics=(metric("n", labels=("disk",)),))
    tally = Tally(probe)
    for end in ("a", "b", "c"):
        tally.observe("c1", (1, "\x01" * 100_000 + end, ""))
        tally.observe("c1", (1, "/deep" * 40 + end, ""))
        tally.observe("c1", (1, "\x02" * 150 + end, ""))
    (family,) = (
        one
        for one in probe_metrics([ProbeRow("p", True, tally=tally)], {}, {"c1"})
        if one.name == "ringfence_custom_n"
    )
    labels = [sample.labels["disk"] for sample in family.samples]
    assert len(labels) == len(set(labels)) == 5
    assert sum(sample.value for sample in family.samples) == 9
    assert sum(len(text) for key in rows(tally) for text in key) < 2000


def test_a_file_with_a_non_utf8_name_does_not_break_a_scrape() -> None:
    """An editor or an archive may leave such names; they are shown as in every other output."""
    registry = CollectorRegistry()

    class Fixed(Collector):
        def collect(self) -> Iterable[Metric]:
            return probe_metrics([ProbeRow("caf\udce9\n", False)], {"loaded": 0}, ())

    registry.register(Fixed())
    assert 'ringfence_probe_up{probe="caf\\\\xe9\\\\n"} 0' in exposition(registry).decode()
