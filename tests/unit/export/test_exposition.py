# SPDX-License-Identifier: Apache-2.0
"""The fast writer's text is equivalent to prometheus-client's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ringfence.export.exposition import BulkFamily, exposition
from ringfence.export.metrics import new_registry
from tests.unit.export.fakes import World


class Fixed(Collector):
    """A file's name that was no UTF-8."""

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("x", "help", labels=["a"])
        family.add_metric(["b\udcffd"], 1)
        yield family


Samples = set[tuple[str, tuple[tuple[str, str], ...], float]]


def samples(text: str) -> Samples:
    """The samples as Prometheus reads them."""
    return {
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(st.lists(st.tuples(st.text(), st.text(), st.integers(0, 1 << 53)), unique_by=lambda row: row[:2]))
def test_any_label_and_value_reads_back(rows: list[tuple[str, str, int]]) -> None:
    """Quotes, backslashes, line ends, nothing at all."""
    bulk = BulkFamily("counter", "x", "help", ["a", "b"])
    usual = CounterMetricFamily("x", "help", labels=["a", "b"])
    for a, b, value in rows:
        bulk.add_metric([a, b], value)
        usual.add_metric([a, b], value)
    assert bulk.samples == usual.samples
    lines = bulk.text().split("\n")
    assert len(lines) == len(rows) + 3, "a label broke a line"
    readable = {row for row in rows if not {*"\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"} & {*row[0], *row[1]}}
    if len(readable) == len(
        rows
    ):  # the parser of prometheus-client splits lines at these, Prometheus does not
        assert samples(bulk.text()) == {("x_total", (("a", a), ("b", b)), float(n)) for a, b, n in rows}


def test_a_gauge_keeps_its_name_and_fractions() -> None:
    """0.25 s of pressure is 0.25."""
    bulk, usual = BulkFamily("gauge", "y", "help", ["a"]), GaugeMetricFamily("y", "help", labels=["a"])
    for family in (bulk, usual):
        family.add_metric(["c"], 0.25)
    assert samples(bulk.text()) == {("y", (("a", "c"),), 0.25)}
    assert bulk.samples == usual.samples


def test_a_whole_scrape_is_the_same_both_ways() -> None:
    """Every family of the agent; again after counts, names and containers changed: no line is outdated."""
    world = World(limit=3)
    for number in range(5):
        world.add(number, f'we"b\\{number}', opens=7 + number)
    registry = new_registry(world.parts)
    volatile = ("process_", "ringfence_canary_seconds", "ringfence_heartbeat")

    def steady(text: str) -> Samples:
        return {one for one in samples(text) if not one[0].startswith(volatile)}

    for change in (
        lambda: None,
        lambda: world.open(0, 1000),
        lambda: world.live.__setitem__(1, replace(world.live[1], name="known by now", image="x:1")),
        lambda: world.remove(world.live[0]),
        lambda: world.add(9, "new", opens=3),
        lambda: world.open(9, 0),
    ):
        change()
        text = exposition(registry).decode()
        assert steady(text) == steady(generate_latest(registry).decode())
        assert len(text.splitlines()) == len(set(text.splitlines())), "a line twice"
    assert 'name="known by now"' in text


def test_a_label_that_is_no_text_costs_no_scrape() -> None:
    """Labels are escaped where they are made; if one is not, all other series are still exported."""
    registry = CollectorRegistry()
    registry.register(Fixed())
    assert samples(exposition(registry).decode()) == {("x_total", (("a", "b?d"),), 1.0)}


def test_openmetrics_has_the_same_samples_and_the_ids_of_alerts() -> None:
    """Read by prometheus-client's strict parser: names, HELP, the end, and exemplars."""
    world = World()
    world.add(1, name='a "quoted" name', opens=7)
    registry = new_registry(world.parts)
    text = exposition(registry, openmetrics=True).decode()
    assert text.endswith("# EOF\n")
    read = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample
        for family in openmetrics_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }
    plain = {key[:2] for key in samples(exposition(registry).decode())}
    assert set(read) == plain
    buckets = [one for (name, _), one in read.items() if name == "ringfence_alert_latency_seconds_bucket"]
    assert [one.exemplar.labels for one in buckets if one.exemplar] == [{"alert_id": "2866c188da39f1d0-1"}]
    assert "alert_id" not in exposition(registry).decode(), "the text format has no exemplars"
