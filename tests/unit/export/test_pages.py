# SPDX-License-Identifier: Apache-2.0
"""The runbook of an alert is that of the shipped Prometheus rule for the same attempt."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.export.pages import page_of
from ringfence.export.sinks.urgency import urgency
from ringfence.response.alert import Outcome
from ringfence.response.builtin import POLICY

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "charts/ringfence/rules/ringfence.yaml"
NAMED = {
    "agent-tampered": "RingfenceAgentTampered",
    "container-condemned": "RingfenceContainerCondemned",
    "helper-changed": "RingfenceHostChanged",
    "preemption-changed": "RingfencePreemptionSwitched",
    "new-program": "RingfenceDetectorFinding",
}


def shipped() -> list[dict[str, Any]]:
    """Returns all rules of the shipped file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alert_for(outcome: str, severity: str = "high") -> dict[str, Any]:
    """Returns the alert whose recording rule counts an outcome of rules of that severity."""
    [record] = (
        rule["record"]
        for rule in shipped()
        if "record" in rule
        and 'kind="rule"' in rule["expr"]
        and re.search(rf'severity=~?"[^"]*\b{severity}\b', rule["expr"])
        and (found := re.search(r'outcome=~"([^"]+)"', rule["expr"]))
        and outcome in found[1].split("|")
    )
    [alert] = (rule for rule in shipped() if "alert" in rule and rule["expr"].startswith(f"{record} "))
    return alert


@pytest.mark.parametrize("outcome", [str(outcome) for outcome in Outcome])
def test_an_outcome_has_the_page_and_the_severity_of_its_rule(outcome: str) -> None:
    """Of a rule of high severity."""
    record = {"rule": {"id": "mount-call", "policy": "p"}, "outcome": outcome, "severity": "high"}
    rule = alert_for(outcome)
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{page_of(record).name}.md")
    assert rule["labels"]["severity"] == urgency(record)


@pytest.mark.parametrize("outcome", ["seen", "kill-failed"])
def test_what_a_rule_of_medium_severity_did_not_stop_has_a_page_of_its_own(outcome: str) -> None:
    """A warning in both ways."""
    record = {"rule": {"id": "mount-call", "policy": "p"}, "outcome": outcome, "severity": "medium"}
    rule = alert_for(outcome, "medium")
    assert rule["alert"] == "RingfenceMediumNotStopped"
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{page_of(record).name}.md")
    assert rule["labels"]["severity"] == urgency(record) == "warning"


@pytest.mark.parametrize(("name", "alert"), NAMED.items())
def test_rules_and_detectors_with_a_page_of_their_own(name: str, alert: str) -> None:
    """Whatever the outcome."""
    policy = POLICY if name == "container-condemned" else "detectors"
    record = {"rule": {"id": name, "policy": policy}, "outcome": "seen", "severity": "high"}
    [rule] = (rule for rule in shipped() if rule.get("alert") == alert)
    assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{page_of(record).name}.md")
    assert rule["labels"]["severity"] == urgency(record)


@pytest.mark.parametrize("rule", ["agent-tamper", "agent-unknown"])
def test_an_attempt_on_the_agent_has_the_page_of_its_outcome(rule: str) -> None:
    """As with every other attempt: it was stopped."""
    assert page_of({"rule": {"id": rule}, "outcome": "denied"}).name == "escape-denied"


@pytest.mark.parametrize("rule", ["helper-changed", "agent-tampered", "container-condemned"])
def test_a_users_rule_of_the_same_name_has_the_page_of_its_outcome(rule: str) -> None:
    """Ids of built-in rules are free in policies."""
    assert page_of({"rule": {"id": rule, "policy": "mine"}, "outcome": "denied"}).name == "escape-denied"
