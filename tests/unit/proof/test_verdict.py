# SPDX-License-Identifier: Apache-2.0
"""How `ringfence policy test` judges results: passed, a problem, or weaker than required."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from ringfence.cli import policy_test
from ringfence.proof.campaign import Result
from ringfence.proof.cases import Case, Outcome
from ringfence.proof.program import DID_NOT_RUN, REFUSED, Attempt
from ringfence.proof.verdict import judge, outcome_of, problems_of, shortfall_of

CASE = Case("some-rule", (1,), "killed", "attack", "twin")
KILLED = Attempt("call", 1, 137, "")
DENIED = Attempt("call", 1, REFUSED, "failed EPERM")
WORKED = Attempt("call", 1, 0, "worked 0")
FAILED = Attempt("call", 1, 1, "failed EINVAL")
ABSENT = Attempt("call", 1, 1, "failed ENOSYS")
NOT_RUN = Attempt("", 0, 3, "setup the device: No such file or directory")
DID_NOT = Attempt("core_pattern", 1, DID_NOT_RUN, "did not run")


def alert(outcome: str, mechanism: str) -> dict[str, Any]:
    """One alert of the agent."""
    return {"outcome": outcome, "mechanism": mechanism, "latency_us": 700, "rule": {"id": "some-rule"}}


def result(attack: Attempt, *alerts: dict[str, Any], **changes: Any) -> Result:
    """An enforced case on a node where the rule's effective action is kill."""
    blank: dict[str, Any] = {
        "case": CASE, "mode": "enforce", "expected": "killed", "attack": attack, "alerts": list(alerts),
        "twin": WORKED, "twin_verdicts": {}, "twin_alerts": [], "claims": frozenset({("kill", "kill")}),
    }  # fmt: skip
    return Result(**(blank | changes))


LSM = {"claims": frozenset({("deny", "lsm")}), "expected": "denied"}
REPORTS = {"claims": frozenset({("alert", "observe")}), "expected": "seen"}
BLIND: dict[str, Any] = {"claims": frozenset(), "expected": "blind"}


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (result(KILLED, alert("killed", "kill")), ("killed", "kill")),
        (result(DENIED, alert("denied", "lsm"), **LSM), ("denied", "lsm")),
        (result(FAILED, alert("seen", "observe"), **REPORTS), ("seen", "observe")),
        (result(WORKED, **BLIND), ("blind", "")),
        (result(ABSENT), ("absent", "")),
        (result(WORKED, missing="no loop device"), ("untried", "")),
    ],
)
def test_a_case_passes_as_stated_and_expected(got: Result, outcome: tuple[str, str]) -> None:
    """The outcome is what the agent states and the case expects; nothing affected the twin."""
    assert outcome_of(got) == outcome
    assert problems_of(got) == []
    assert shortfall_of(got) == ""


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (result(WORKED), "was not reported; it ended: worked 0"),
        (result(NOT_RUN), "was not run: setup the device"),
        (result(WORKED, alert("killed", "kill")), "reported as killed, but the attack ended: worked 0"),
        (result(KILLED, alert("seen", "observe"), **REPORTS), "reported as seen, but the attack ended: 137"),
        (result(DENIED, alert("seen", "observe"), **REPORTS), "reported as seen, but the attack ended: f"),
        (result(WORKED, alert("denied", "lsm"), **LSM), "reported as denied, but the attack ended: worked 0"),
        (result(KILLED, alert("denied", "lsm"), **LSM), "reported as denied, but the attack ended: 137"),
        (result(DENIED, alert("denied", "cgroup"), **LSM), "the agent stated denied by lsm"),
        (result(WORKED, alert("seen", "observe")), "the agent stated killed by kill"),
        (result(KILLED, **BLIND), "no rule can see it here, but it ended: 137"),
        (result(WORKED, alert("seen", "observe"), **BLIND), "the agent stated nothing"),
        (result(KILLED, alert("killed", "kill"), twin=KILLED), "the twin was killed"),
        (result(KILLED, alert("killed", "kill"), twin=DENIED), "the twin was refused"),
        (result(KILLED, alert("killed", "kill"), twin=NOT_RUN), "the twin was not run"),
        (result(KILLED, alert("killed", "kill"), twin_verdicts={"alert": 1}), "the twin matched a rule"),
        (result(KILLED, alert("killed", "kill"), twin_alerts=[alert("seen", "observe")]), "was reported"),
    ],
)  # fmt: skip
def test_a_problem_is_described(got: Result, words: str) -> None:
    """Each result differs from a passing one in one thing."""
    assert any(words in problem for problem in problems_of(got)), problems_of(got)


@pytest.mark.parametrize(
    ("attack", "outcome", "problem"),
    [
        (WORKED, "would-kill", ""),
        (WORKED, "killed", "reported as killed"),
        (KILLED, "would-kill", "was stopped although the mode is audit"),
        (DENIED, "would-kill", "was stopped although the mode is audit"),
        (DID_NOT, "would-kill", "was stopped although the mode is audit"),
    ],
)
def test_audit_mode_only_reports_what_would_happen(attack: Attempt, outcome: str, problem: str) -> None:
    """The attack must not be stopped."""
    found = problems_of(result(attack, alert(outcome, "kill"), mode="audit"))
    assert ([problem in one for one in found] == [True]) if problem else found == []


@pytest.mark.parametrize(
    ("claim", "outcome", "mechanism", "expected", "falls"),
    [
        ("alert", "seen", "observe", "killed", True),
        ("alert", "seen", "observe", "denied", True),
        ("kill", "killed", "kill", "denied", True),
        ("deny", "denied", "cgroup", "killed", False),
        ("alert", "seen", "observe", "seen", False),
    ],
)
def test_a_degraded_rule_is_found(
    claim: str, outcome: str, mechanism: str, expected: Outcome, falls: bool
) -> None:
    """The agent states what happened, so the run has no problem; the node has."""
    attack = {"seen": WORKED, "killed": KILLED, "denied": DENIED}[outcome]
    claims = frozenset({(claim, mechanism)})
    got = result(attack, alert(outcome, mechanism), expected=expected, claims=claims)
    assert problems_of(got) == []
    assert bool(shortfall_of(got)) is falls
    assert judge(got, None).expected == expected
    assert bool(judge(got, None).shortfall) is falls


def test_a_blind_rule_is_the_most_degraded() -> None:
    """Its hook is not available, and nothing else sees the event."""
    got = result(WORKED, claims=frozenset(), expected="denied")
    assert shortfall_of(got) == "expected to be denied here, but was blind: `ringfence probe` shows why"


@pytest.mark.parametrize(
    ("strict", "ci", "status"),
    [(None, "", 0), (None, "true", 1), (True, "", 1), (False, "true", 0)],
)
def test_strict_makes_a_degraded_rule_a_failure(
    strict: bool | None,
    ci: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`--strict`, by default in CI. The degraded rule is printed in any case."""
    monkeypatch.setenv("CI", ci)
    fallen = result(WORKED, alert("seen", "observe"), claims=frozenset({("alert", "observe")}))
    options = argparse.Namespace(strict=strict, output="table")
    assert policy_test._show(options, [judge(fallen, None)], []) == status
    assert (
        "some-rule: `attack`: expected to be killed here, but was seen by observe" in capsys.readouterr().out
    )


def test_a_usermode_helper_only_shows_that_it_did_not_run() -> None:
    """Killed and denied look alike from outside; a detector reports what another rule may stop."""
    host = CASE._replace(host=True)
    assert problems_of(result(DID_NOT, alert("killed", "kill"), case=host)) == []
    (problem,) = problems_of(result(WORKED, alert("killed", "kill"), case=host))
    assert "reported as killed" in problem
    detector = host._replace(detector=True)
    assert problems_of(result(DID_NOT, alert("seen", "observe"), case=detector, **REPORTS)) == []


@pytest.mark.parametrize(
    ("outcome", "lsm", "with_lsm"),
    [
        ("killed", None, "denied"), ("blind", None, "denied"), ("denied", None, "denied"),
        ("seen", None, "seen"), ("seen", "denied", "denied"), ("killed", "killed", "killed"),
    ],
)  # fmt: skip
def test_the_expected_outcome_with_bpf_lsm(outcome: Outcome, lsm: Outcome | None, with_lsm: Outcome) -> None:
    """A kill becomes a denial unless the case says otherwise; an alert stays an alert."""
    assert CASE._replace(outcome=outcome, lsm=lsm).with_lsm == with_lsm
