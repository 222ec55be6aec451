# SPDX-License-Identifier: Apache-2.0
"""Every rule in force has its series before its first alert, with the labels that the alert will
have.
"""

from __future__ import annotations

from typing import Literal

import pytest

from ringfence.daemon.delivery.alert_counters import make_series
from ringfence.export.stats import Stats
from ringfence.policy import CompiledPolicies, NodeTiers, compile_policies
from ringfence.policy.load import load_bytes
from ringfence.policy.probe_rules import FieldWords, ProbeWords
from ringfence.response.detectors import DETECTORS

POLICY = b"""
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: test}
spec:
  selector: {containers: all}
  mode: enforce
  rules:
    - {id: one, title: t, severity: high, attack: [T1611], event: network.connect, match: any, action: deny}
    - {id: two, title: t, severity: low, attack: [T1082], event: personality, match: any, action: alert}
    - {id: three, title: t, severity: low, attack: [T1082], event: unshare, match: any, action: kill}
"""


def compiled(mode: Literal["audit", "enforce"]) -> CompiledPolicies:
    """These rules on a node without BPF-LSM."""
    return compile_policies(load_bytes({"test.yaml": POLICY}), NodeTiers.usual(), mode)


def of_rules(stats: Stats) -> set[tuple[str, str, str, str]]:
    """Series that are no detectors'."""
    return {labels for labels in stats.alerts if labels[0] not in DETECTORS}


def test_enforced_rules_have_what_can_become_of_them() -> None:
    """Denied by a cgroup program; killed or not; seen."""
    stats = Stats()
    make_series(stats, compiled("enforce"))
    assert of_rules(stats) == {
        ("one", "high", "deny", "denied"),
        ("two", "low", "alert", "seen"),
        ("three", "low", "kill", "killed"),
        ("three", "low", "kill", "kill-failed"),
    }
    assert not any(stats.alerts.values())


@pytest.mark.parametrize("rule", ["one", "two", "three"])
def test_audited_rules_have_what_would_be(rule: str) -> None:
    """The words of audit mode, and no other."""
    stats = Stats()
    make_series(stats, compiled("audit"))
    wanted = {"one": "would-deny", "two": "seen", "three": "would-kill"}[rule]
    assert {outcome for name, _, _, outcome in stats.alerts if name == rule} == {wanted}


def test_what_was_counted_stays() -> None:
    """A reload sets nothing back."""
    stats = Stats()
    stats.alerts["two", "low", "alert", "seen"] = 7
    make_series(stats, compiled("enforce"))
    assert stats.alerts["two", "low", "alert", "seen"] == 7


PROBES = {"probe.slow": ProbeWords("probe.slow", {"ms": FieldWords("number")}, in_task=True)}
ON_EVENTS = b"""
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: events}
spec:
  selector: {containers: all}
  mode: enforce
  rules:
    - {id: alerts, title: t, severity: low, attack: T1082, event: probe.slow, match: any, action: alert}
    - {id: ends, title: t, severity: high, attack: [T1611], event: probe.slow, match: {ms: 5}, action: kill}
"""
KILLS: dict[str, set[str]] = {
    "policy": {"killed", "kill-failed"},
    "enforce": {"killed", "kill-failed"},
    "audit": {"would-kill"},
}


@pytest.mark.parametrize("mode", KILLS)
def test_rules_on_custom_probes_have_series_too(mode: str) -> None:
    """Alerts and techniques, in the words of the mode that the agent gives them."""
    stats = Stats()
    compiled = compile_policies(load_bytes({"events.yaml": ON_EVENTS}, PROBES), NodeTiers.usual())
    make_series(stats, compiled, mode)
    kills = {("ends", "high", "kill", outcome) for outcome in KILLS[mode]}
    assert of_rules(stats) == kills | {("alerts", "low", "alert", "seen")}
    assert not any(stats.alerts.values())
    (family,) = stats.attempts.collect()
    series = {(sample.labels["technique"], sample.labels["outcome"]) for sample in family.samples}
    detectors = {(technique, "seen") for one in DETECTORS.values() for technique in one.attack}
    assert series == {("T1611", outcome) for outcome in KILLS[mode]} | {("T1082", "seen")} | detectors


def test_detectors_have_series_too() -> None:
    """The first finding of a node is an alert in Prometheus, not a series that begins with 1."""
    stats = Stats()
    make_series(stats, compiled("enforce"), off=("sweep",))
    series = {labels for labels in stats.alerts if labels[0] in DETECTORS}
    assert series == {
        (one.id, one.severity, "alert", "seen") for one in DETECTORS.values() if one.id != "sweep"
    }
    assert "sweep" not in stats.alerts_suppressed
    assert stats.alerts_suppressed["image-link"] == 0


def test_more_rules_than_may_have_series_are_one() -> None:
    """They count as `other`, from 0 on. The bound is the same when series are created and counted."""
    stats = Stats()
    while stats.series(f"r{len(stats.rules)}") != "other":
        pass
    make_series(stats, compiled("enforce"))
    assert {labels[0] for labels in stats.alerts} == {"other"}
    assert stats.series("one") == "other"
