# SPDX-License-Identifier: Apache-2.0
"""The shipped rules, checked by promtool: they parse, fire as in their cases, and have runbooks."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.rules import FILES, ROOT, Alert, alerts, documented, expressions, groups, metrics_of
from tests.support.force import need_program

CASES = sorted(Path(__file__).parent.glob("*_test.yaml"))
RUNBOOKS = ROOT / "docs/runbooks"


BASE = "https://github.com/ringfence/ringfence/blob/main/docs/runbooks/"


def page_of(alert: Alert) -> str:
    """The page in docs/runbooks that the alert's URL names."""
    url = alert.annotations["runbook_url"]
    assert url.startswith(BASE), alert.name
    return url.removeprefix(BASE)


def promtool(*arguments: str, cwd: Path | None = None) -> str:
    """What it says; fails with that where its status is not 0."""
    done = subprocess.run(
        [need_program("promtool"), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_rules() -> None:
    """`promtool check rules`, with its lint."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, FILES))


def test_every_rule_does_what_its_case_says(tmp_path: Path) -> None:
    """`promtool test rules`: when it fires, with which text, and when it does not."""
    for path in (*FILES, *CASES):
        shutil.copy(path, tmp_path)
    assert "SUCCESS" in promtool("test", "rules", *(path.name for path in CASES), cwd=tmp_path)


@pytest.mark.parametrize(
    ("mistake", "command", "said"),
    [
        ("{{ $labels.node | humanise }}", "check", 'function "humanise" not defined'),
        ("{{ $labels.node }", "check", 'unexpected "}"'),
        ("{{ $label.node }}", "check", 'undefined variable "$label"'),
        ("{{ $labels.nodes }}", "test", "RingfenceNodeWithoutAgent"),
    ],
)
def test_a_mistake_in_the_template_of_an_alert_is_found(
    tmp_path: Path, mistake: str, command: str, said: str
) -> None:
    """By its syntax, or by the text that the case expects: a label that is misspelt is empty."""
    for path in (*FILES, *CASES):
        shutil.copy(path, tmp_path)
    (rules,) = (tmp_path / path.name for path in FILES)
    text = rules.read_text()
    place = text.index("{{ $labels.node }}", text.index("- alert: RingfenceNodeWithoutAgent"))
    rules.write_text(text[:place] + mistake + text[place + len("{{ $labels.node }}") :])
    arguments = {"check": ["check", "rules", rules.name], "test": ["test", "rules", "agent_test.yaml"]}[
        command
    ]
    with pytest.raises(AssertionError, match=re.escape(said)):
        promtool(*arguments, cwd=tmp_path)


def _cases() -> dict[str, list[bool]]:
    """Alert -> whether each of its cases fires."""
    found: dict[str, list[bool]] = {}
    for path in CASES:
        for group in yaml.safe_load(path.read_text())["tests"]:
            for case in group.get("alert_rule_test", []):
                found.setdefault(case["alertname"], []).append(bool(case["exp_alerts"]))
    return found


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert.name))
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(alert: Alert) -> None:
    """A rule that never fires would pass all other tests."""
    assert set(_cases()[alert.name]) == {True, False}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert.name))
def test_every_alert_leads_to_its_runbook(alert: Alert) -> None:
    """A page with its name, its severity, and the actions."""
    assert alert.labels["severity"] in ("warning", "critical")
    page = (RUNBOOKS / page_of(alert)).read_text()
    assert page.startswith(f"# {alert.name}\n")
    assert f"**Severity:** {alert.labels['severity']}" in page
    for heading in ("## What it means", "## Look", "## Do"):
        assert heading in page
    assert alert.annotations["summary"]
    assert alert.annotations["description"]


def test_every_runbook_belongs_to_an_alert() -> None:
    """No page for a removed alert."""
    named = {page_of(alert) for alert in alerts()}
    assert {path.name for path in RUNBOOKS.glob("*.md")} == named


def test_rules_read_only_metrics_that_are_documented() -> None:
    """docs/reference/metrics.md is compared with the agent elsewhere; kube_* come from kube-state-metrics."""
    known = documented() | {"up"}
    for name, expression in expressions().items():
        unknown = {one for one in metrics_of(expression) if not one.startswith("kube_")} - known
        assert not unknown, f"{name} reads {unknown}"
        recorded = set(re.findall(r"\bringfence(?::[a-z0-9_]+)+", expression))
        assert metrics_of(expression) or recorded, name
        assert recorded <= set(expressions()), f"{name} reads what nobody records"


def test_the_alerts_that_were_promised_are_there() -> None:
    """The list of the issue, by name."""
    assert {alert.name for alert in alerts()} >= {
        "RingfenceEscapeDenied", "RingfenceEscapeNotStopped", "RingfenceAgentDown", "RingfenceEventsDropped",
        "RingfenceEventsUnattributed", "RingfenceHooksNotAttached", "RingfencePolicyRefused",
        "RingfenceCanarySilent", "RingfenceNodeWithoutEnforcement", "RingfenceAlertsLost",
        "RingfenceReceiverDown", "RingfenceQueueFilling", "RingfencePodWatchDown", "RingfenceAuditStale",
        "RingfenceAuditCritical", "RingfenceRecordsUnreadable", "RingfenceAgentBug", "RingfenceMapNearlyFull",
        "RingfenceActivityLowered", "RingfenceCustomProbeDown",
    }  # fmt: skip


def _rule(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The group and the rule of an alert."""
    return next((g, rule) for g in groups() for rule in g["rules"] if rule.get("alert") == name)


@pytest.mark.parametrize(
    ("name", "promised"), [("RingfenceAgentDown", 90), ("RingfenceNodeWithoutAgent", 240)]
)
def test_the_death_of_an_agent_fires_in_time_and_not_after_one_failed_scrape(
    name: str, promised: int
) -> None:
    """By arithmetic, with the chart's interval: a failed scrape, an evaluation, those of `for`."""
    values = yaml.safe_load((ROOT / "charts/ringfence/values.yaml").read_text())
    assert values["podMonitor"]["interval"] == values["serviceMonitor"]["interval"] == "30s"
    group, rule = _rule(name)
    scrape, evaluation, patience = map(
        _seconds, (values["podMonitor"]["interval"], group["interval"], rule["for"])
    )
    waited = -(-patience // evaluation) * evaluation  # `for` is looked at by evaluations only
    assert scrape + evaluation + waited <= promised
    assert patience > scrape, "a second scrape must have failed"
    page = (RUNBOOKS / page_of(next(one for one in alerts() if one.name == name))).read_text()
    words = {90: "at most 90 s after", 240: "at most four minutes after"}
    assert words[promised] in page


ATTEMPTS = [rule for group in groups() if group["name"] == "ringfence.attempts" for rule in group["rules"]]


@pytest.mark.parametrize("rule", ATTEMPTS, ids=lambda rule: str(rule["alert"]))
def test_alerts_about_attempts_outlast_a_restart(rule: dict[str, Any]) -> None:
    """attempts_test.yaml has an example; this holds for all of them."""
    assert _seconds(rule["keep_firing_for"]) >= 600


def test_only_what_may_have_taken_effect_is_critical() -> None:
    """By the outcomes that each rule reads: denials, kills and mode audit are warnings."""
    made = {rule["alert"]: rule for rule in ATTEMPTS}
    critical = {name for name, rule in made.items() if rule["labels"]["severity"] == "critical"}
    assert critical == {
        "RingfenceEscapeNotStopped", "RingfenceHostChanged", "RingfenceAgentTampered",
        "RingfenceContainerCondemned",
    }  # fmt: skip
    outcomes = re.findall(r'outcome=~"([^"]*)"', expressions()["ringfence:escapes_not_stopped:increase5m"])
    assert outcomes == ["seen|kill-failed"]
    assert 'kind="condemned"' in expressions()["ringfence:condemned:increase5m"]


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)(s|m)", text)
    assert found
    return int(found[1]) * {"s": 1, "m": 60}[found[2]]
