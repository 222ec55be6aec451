# SPDX-License-Identifier: Apache-2.0
"""Alerts by container: the names of the pod, bounded series, and sums that only grow."""

from __future__ import annotations

from dataclasses import replace

from ringfence.containers.model import Container, Enrichment
from ringfence.export.container_alerts import OTHER, ContainerAlerts, RuleFacts

RULE = RuleFacts("mount-call", "A container mounts a filesystem", "high")
NAMED = Container("a" * 64, 1, 1, namespace="shop", pod="web-0", name="web", enrichment=Enrichment.DONE)
UNNAMED = Container("b" * 64, 2, 2)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def counts(alerts: ContainerAlerts, *labels: str) -> dict[tuple[str, ...], float]:
    """The values of one scrape, by these labels."""
    [family] = alerts.collect()
    assert len({tuple(one.labels.items()) for one in family.samples}) == len(family.samples)
    return {tuple(one.labels[label] for label in labels): one.value for one in family.samples}


def test_a_series_names_node_pod_rule_and_outcome() -> None:
    """Everything that an alerting rule needs for its labels and its sentence."""
    alerts = ContainerAlerts("node-1", now=Clock())
    alerts.add(RULE, "killed", NAMED)
    alerts.add(RULE, "killed", NAMED)
    [family] = alerts.collect()
    [sample] = family.samples
    assert sample.name == "ringfence_container_alerts_total"
    assert sample.value == 2
    assert sample.labels == {
        "node": "node-1", "namespace": "shop", "pod": "web-0", "container": "web", "rule": "mount-call",
        "title": "A container mounts a filesystem", "severity": "high", "kind": "rule", "outcome": "killed",
    }  # fmt: skip


def test_a_restarted_container_of_a_pod_continues_its_series() -> None:
    """Two containers with the same names are one series: Prometheus refuses a scrape with two."""
    alerts = ContainerAlerts(now=Clock())
    alerts.add(RULE, "denied", NAMED)
    alerts.add(RULE, "denied", replace(NAMED, id="c" * 64, cgroup_id=3))
    assert counts(alerts, "pod", "container") == {("web-0", "web"): 2}


def test_an_alert_waits_for_the_names_of_its_container() -> None:
    """A series that began without a pod would be a second alert when the pod is known."""
    clock = Clock()
    alerts = ContainerAlerts(now=clock)
    alerts.add(RULE, "denied", UNNAMED)
    assert counts(alerts, "pod") == {}
    alerts.identified(replace(NAMED, cgroup_id=UNNAMED.cgroup_id))
    assert counts(alerts, "pod") == {("web-0",): 1}
    alerts.add(RULE, "denied", replace(UNNAMED, cgroup_id=9))
    clock.now = 3.0
    assert counts(alerts, "pod", "container") == {("web-0", "web"): 1, ("", "b" * 12): 1}


def test_without_room_alerts_count_for_other_until_a_series_is_idle() -> None:
    """The number of series is bounded, and an hour later new containers have their own again."""
    clock = Clock()
    alerts = ContainerAlerts(most=2, now=clock)
    for number in range(5):
        alerts.add(RULE, "denied", replace(NAMED, pod=f"web-{number}", cgroup_id=10 + number))
    alerts.add(RULE, "denied", UNNAMED)
    assert counts(alerts, "pod", "container") == {("web-0", "web"): 1, ("web-1", "web"): 1, ("", OTHER): 4}
    clock.now = 3600.0
    alerts.add(RULE, "denied", replace(NAMED, pod="web-9", cgroup_id=19))
    assert counts(alerts, "pod") == {("web-9",): 1}


def test_an_alert_without_a_container_has_no_names() -> None:
    """Findings about the node."""
    alerts = ContainerAlerts("n", now=Clock())
    alerts.add(RULE._replace(kind="detector"), "seen", None)
    assert counts(alerts, "namespace", "pod", "container", "kind") == {("", "", "", "detector"): 1}
