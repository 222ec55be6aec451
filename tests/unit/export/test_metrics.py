# SPDX-License-Identifier: Apache-2.0
"""The collector: names that Prometheus accepts, bounded series, sums that only grow, and the reference
page."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ringfence.export import families
from ringfence.export.metrics import new_registry
from tests.support.force import need_program
from tests.unit.export.fakes import World

DOCS = Path(__file__).resolve().parents[3] / "docs/reference/metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(registry: CollectorRegistry) -> Samples:
    """Every sample of one scrape."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """One sample, None when it is not there."""
    return samples.get((name, frozenset(labels.items())))


def test_counts_of_the_agent_and_of_the_kernel_are_shown() -> None:
    """A sample of each source: statistics, maps, policies, programs, rings."""
    samples = scrape(new_registry(World().parts))
    alert = {"rule": "core-pattern", "severity": "critical", "action": "deny", "outcome": "denied"}
    assert value(samples, "ringfence_alerts_total", **alert) == 3
    assert value(samples, "ringfence_events_emitted_total", event="file.open") == 42
    assert value(samples, "ringfence_events_dropped_total", event="file.open", reason="ring_full") == 9
    assert value(samples, "ringfence_decode_errors_total", reason="short") == 1
    assert value(samples, "ringfence_policy_generation") == 4
    assert value(samples, "ringfence_rules", action="deny", mechanism="cgroup") == 5
    assert value(samples, "ringfence_program_runs_total", program="on_exec") == 12
    assert value(samples, "ringfence_program_run_seconds_total", program="on_exec") == pytest.approx(3e-6)
    assert value(samples, "ringfence_ring_pending_bytes", ring="alerts") == 640
    assert value(samples, "ringfence_alert_latency_seconds_bucket", le="0.002") == 1
    assert value(samples, "ringfence_alert_latency_seconds_bucket", le="0.001") == 0
    assert value(samples, "ringfence_enrichments_total", result="done") == 2
    assert value(samples, "process_resident_memory_bytes")
    assert value(samples, "ringfence_receiver_up", receiver="webhook-0a") == 0
    assert value(samples, "ringfence_receiver_queue_records", receiver="webhook-0a") == 3
    assert value(samples, "ringfence_receiver_sent_total", receiver="webhook-0a") == 5
    assert value(samples, "ringfence_receiver_retries_total", receiver="webhook-0a", reason="timeout") == 2
    assert value(samples, "ringfence_receiver_lost_total", receiver="webhook-0a", reason="queue_full") == 1
    assert value(samples, "ringfence_records_redacted_total") == 4
    assert value(samples, "ringfence_enrichment_errors_total", source="kubernetes") == 3
    assert value(samples, "ringfence_pod_watch_up") == 0
    finding = {"check": "privileged", "scope": "container", "severity": "critical"}
    assert value(samples, "ringfence_audit_findings", **finding) == 1
    assert value(samples, "ringfence_pod_watch_pods") == 5
    assert value(samples, "ringfence_pod_watch_restarts_total", reason="gone") == 1
    assert value(samples, "ringfence_pod_watch_events_total", usable="no") == 2
    assert value(samples, "ringfence_pod_watch_events_total", usable="yes") == 7


def test_readiness_and_refused_policies_are_metrics() -> None:
    """What /readyz says, and a set on disk that was refused."""
    world = World()
    world.ready = False
    world.policies = world.policies._replace(refused=("a.yaml:1:1: bad", "b.yaml:1:1: worse"))
    samples = scrape(new_registry(world.parts))
    assert value(samples, "ringfence_ready") == 0
    assert value(samples, "ringfence_policy_up_to_date") == 0
    assert value(samples, "ringfence_policy_problems") == 2


def activity(samples: Samples, container: str) -> float | None:
    """Opened files of a container's series."""
    labels = {"container": container, "class": "open"}
    return value(samples, "ringfence_container_activity_total", **labels)


def short(number: int) -> str:
    """The label of a container that World made."""
    return f"{number:012x}"


def test_series_of_containers_are_capped_and_the_rest_is_summed() -> None:
    """Two have series of their own, three are `other`, and a metric says so."""
    world = World(limit=2)
    for number in range(5):
        world.add(number, opens=10, tasks=2)
    samples = scrape(new_registry(world.parts))
    assert activity(samples, short(0)) == activity(samples, short(1)) == 10
    assert activity(samples, short(2)) is None
    assert activity(samples, "other") == 30
    assert value(samples, "ringfence_containers_summed") == 3
    assert value(samples, "ringfence_container_armed_tasks", container="other") == 6
    assert value(samples, "ringfence_armed_tasks") == 10
    assert value(samples, "ringfence_containers", state="running") == 5


def test_of_two_with_one_name_the_second_is_summed() -> None:
    """`containers.patterns` may find one name in two parents; a series must be there once."""
    world = World()
    first, second = world.add(1, opens=1), world.add(2, opens=10)
    world.live = [first, replace(second, id=first.id)]
    registry = new_registry(world.parts)
    assert activity(scrape(registry), short(1)) == 1
    assert activity(scrape(registry), "other") == 10
    text = generate_latest(registry).decode()
    assert text.count(f'ringfence_container_info{{container="{short(1)}"') == 1


def test_the_sum_only_grows() -> None:
    """A summed container that ends leaves its counts in the sum; one that stays goes on being summed."""
    world = World(limit=1)
    own = world.add(0, opens=1)
    ends, stays = world.add(1, opens=10), world.add(2, opens=100)
    registry = new_registry(world.parts)
    assert activity(scrape(registry), "other") == 110
    world.remove(ends)
    world.remove(own)
    world.open(stays.slot, 150)
    assert activity(scrape(registry), "other") == 160


def test_a_slot_that_belongs_to_another_by_now_is_not_read() -> None:
    """Between the list of containers and the read of the slot, a container may end and another begin."""
    world = World(limit=0)
    container = world.add(1, opens=10)
    registry = new_registry(world.parts)
    assert activity(scrape(registry), "other") == 10
    world.slots[1] = world.slots[1]._replace(cgroup=4711)
    world.open(container.slot, 99999)
    assert activity(scrape(registry), "other") == 10


@pytest.mark.parametrize("limit", [0, 1])
def test_a_slot_that_is_emptied_between_two_reads_takes_nothing_back(limit: int) -> None:
    """The loop frees it after its owner was read, before its counters are: rate() would take that for a
    restart, and the sum would lack what the container did for ever."""
    world = World(limit=limit)
    container = world.add(1, opens=10)
    registry = new_registry(world.parts)
    label = short(1) if limit else "other"
    assert activity(scrape(registry), label) == 10
    world.open(container.slot, 0)
    assert activity(scrape(registry), label) == 10
    world.remove(container)
    assert activity(scrape(registry), "other") == (None if limit else 10)


def test_hostile_names_are_harmless_labels() -> None:
    """A container's name with quotes, newlines and escape codes keeps the text format whole."""
    world = World()
    world.add(1, name='evil"\n\x1b[31m{x="y"} 1\nringfence_ready 0\\')
    samples = scrape(new_registry(world.parts))
    names = [dict(labels)["name"] for name, labels in samples if name == "ringfence_container_info"]
    assert names == ['evil"\\n\\x1b[31m{x="y"} 1\\nringfence_ready 0\\\\']
    assert value(samples, "ringfence_ready") == 1


def test_promtool_has_nothing_to_say() -> None:
    """Prometheus' own linter, over a scrape with everything in it."""
    promtool = need_program("promtool")
    world = World()
    world.add(1, name="web", opens=3)
    text = generate_latest(new_registry(world.parts))
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    ours = [line for line in (checked.stdout + checked.stderr).decode().splitlines() if "ringfence_" in line]
    assert not ours
    assert checked.returncode == 0


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Metric -> (type, labels), from the tables of docs/reference/metrics.md."""
    found = {}
    for line in DOCS.read_text().splitlines():
        if match := re.match(r"\| `((?:ringfence|process)_\w+)` \| (\w+) \|([^|]*)\|", line):
            found[match[1]] = (match[2], frozenset(re.findall(r"`(\w+)`", match[3])))
    return found


def test_the_reference_names_every_metric_with_its_type_and_labels() -> None:
    """docs/reference/metrics.md and the collector say the same."""
    world = World()
    world.add(1, name="web", opens=3)
    world.stats.alerts_suppressed["r"] = 1
    world.life.unattributed["unknown"] = 1
    real: dict[str, tuple[str, set[str]]] = {}
    writer_labels = {"ringfence_output_lines_total": {"destination"},
                     "ringfence_output_lines_dropped_total": {"destination", "reason"},
                     "ringfence_responses_total": {"result"}}  # fmt: skip
    for family in new_registry(world.parts).collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        real[name] = (family.type, labels | writer_labels.get(name, set()))
    assert documented() == {name: (kind, frozenset(labels)) for name, (kind, labels) in real.items()}


def test_the_canary_shows_how_long_it_has_been_silent_and_is_absent_where_there_is_none() -> None:
    """No zero that looks like health: without a canary there is no such series."""
    world = World()
    assert 7 <= (value(scrape(new_registry(world.parts)), "ringfence_canary_seconds") or 0) < 60
    world.canary_seen = 0.0
    assert value(scrape(new_registry(world.parts)), "ringfence_canary_seconds") is None


def test_hooks_and_mode_are_shown() -> None:
    """What is attached, what is not, and what was configured."""
    samples = scrape(new_registry(World().parts))
    assert value(samples, "ringfence_hooks", state="attached") == 2
    assert value(samples, "ringfence_hooks", state="skipped") == 1
    assert value(samples, "ringfence_hooks", state="absent") == 1
    assert [value(samples, "ringfence_mode", mode=mode) for mode in ("audit", "policy")] == [0, 1]


def test_a_family_of_several_parts_is_one_family() -> None:
    """Prometheus refuses a family that comes twice; the samples of all parts are in it."""

    class Queue:
        def __init__(self, name: str) -> None:
            self._name = name

        def samples(self) -> Iterator[Metric]:
            yield from families.capacity(self._name, (1, 2))

    text = generate_latest(new_registry([Queue("a"), Queue("b")])).decode()
    assert text.count("# TYPE ringfence_capacity_used gauge") == 1
    assert [line for line in text.splitlines() if line.startswith("ringfence_capacity_used")] == [
        'ringfence_capacity_used{of="a"} 1.0',
        'ringfence_capacity_used{of="b"} 1.0',
    ]
