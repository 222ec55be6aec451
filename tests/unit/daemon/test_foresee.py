# SPDX-License-Identifier: Apache-2.0
"""Every rule in force has its series before its first alert, with the labels that the alert will have."""

from __future__ import annotations

from typing import Literal

import pytest

from ringfence.daemon.foresee import foresee
from ringfence.export.stats import Stats
from ringfence.policy import CompiledPolicies, NodeTiers, compile_policies
from ringfence.policy.load import load_bytes

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


def test_enforced_rules_have_what_can_become_of_them() -> None:
    """Denied by a cgroup program; killed or not; seen."""
    stats = Stats()
    foresee(stats, compiled("enforce"))
    assert set(stats.alerts) == {
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
    foresee(stats, compiled("audit"))
    wanted = {"one": "would-deny", "two": "seen", "three": "would-kill"}[rule]
    assert {outcome for name, _, _, outcome in stats.alerts if name == rule} == {wanted}


def test_what_was_counted_stays() -> None:
    """A reload sets nothing back."""
    stats = Stats()
    stats.alerts["two", "low", "alert", "seen"] = 7
    foresee(stats, compiled("enforce"))
    assert stats.alerts["two", "low", "alert", "seen"] == 7
