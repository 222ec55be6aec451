# SPDX-License-Identifier: Apache-2.0
"""What `ringfence policy test` takes for right, for wrong, and for less than it must be."""

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
NOT_TRIED = Attempt("", 0, 3, "setup the device: No such file or directory")
DID_NOT = Attempt("core_pattern", 1, DID_NOT_RUN, "did not run")


def alert(outcome: str, mechanism: str) -> dict[str, Any]:
    """One line of the agent's."""
    return {"outcome": outcome, "mechanism": mechanism, "latency_us": 700, "rule": {"id": "some-rule"}}


def result(attack: Attempt, *alerts: dict[str, Any], **changes: Any) -> Result:
    """An enforced case on a node where the rule comes to a kill."""
    blank: dict[str, Any] = {
        "case": CASE, "mode": "enforce", "expected": "killed", "attack": attack, "alerts": list(alerts),
        "twin": WORKED, "twin_verdicts": {}, "twin_alerts": [], "claims": frozenset({("kill", "kill")}),
    }  # fmt: skip
    return Result(**(blank | changes))


LSM = {"claims": frozenset({("deny", "lsm")}), "expected": "denied"}
TELLS = {"claims": frozenset({("alert", "observe")}), "expected": "seen"}
BLIND: dict[str, Any] = {"claims": frozenset(), "expected": "blind"}


@pytest.mark.parametrize(
    ("got", "outcome"),
    [
        (result(KILLED, alert("killed", "kill")), ("killed", "kill")),
        (result(DENIED, alert("denied", "lsm"), **LSM), ("denied", "lsm")),
        (result(FAILED, alert("seen", "observe"), **TELLS), ("seen", "observe")),
        (result(WORKED, **BLIND), ("blind", "")),
        (result(ABSENT), ("absent", "")),
        (result(WORKED, missing="no loop device"), ("untried", "")),
    ],
)
def test_what_went_as_it_must(got: Result, outcome: tuple[str, str]) -> None:
    """As the agent says, as the case expects, and the twin was left alone."""
    assert outcome_of(got) == outcome
    assert problems_of(got) == []
    assert shortfall_of(got) == ""


@pytest.mark.parametrize(
    ("got", "words"),
    [
        (result(WORKED), "was not told of; it ended: worked 0"),
        (result(NOT_TRIED), "was not tried: setup the device"),
        (result(WORKED, alert("killed", "kill")), "told as killed, but the attack ended: worked 0"),
        (result(KILLED, alert("seen", "observe"), **TELLS), "told as seen, but the attack ended: 137"),
        (result(DENIED, alert("seen", "observe"), **TELLS), "told as seen, but the attack ended: failed"),
        (result(WORKED, alert("denied", "lsm"), **LSM), "told as denied, but the attack ended: worked 0"),
        (result(KILLED, alert("denied", "lsm"), **LSM), "told as denied, but the attack ended: 137"),
        (result(DENIED, alert("denied", "cgroup"), **LSM), "the agent says denied by lsm"),
        (result(WORKED, alert("seen", "observe")), "the agent says killed by kill"),
        (result(KILLED, **BLIND), "nobody sees it here, and yet it ended: 137"),
        (result(WORKED, alert("seen", "observe"), **BLIND), "the agent says nothing"),
        (result(KILLED, alert("killed", "kill"), twin=KILLED), "the twin was killed"),
        (result(KILLED, alert("killed", "kill"), twin=DENIED), "the twin was refused"),
        (result(KILLED, alert("killed", "kill"), twin=NOT_TRIED), "the twin was not tried"),
        (result(KILLED, alert("killed", "kill"), twin_verdicts={"alert": 1}), "the twin met a rule"),
        (result(KILLED, alert("killed", "kill"), twin_alerts=[alert("seen", "observe")]), "told of by"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(got: Result, words: str) -> None:
    """Each differs from a good one in one thing."""
    assert any(words in problem for problem in problems_of(got)), problems_of(got)


@pytest.mark.parametrize(
    ("attack", "outcome", "problem"),
    [
        (WORKED, "would-kill", ""),
        (WORKED, "killed", "told as killed"),
        (KILLED, "would-kill", "was stopped although the mode is audit"),
        (DENIED, "would-kill", "was stopped although the mode is audit"),
        (DID_NOT, "would-kill", "was stopped although the mode is audit"),
    ],
)
def test_audit_only_says_what_would_be(attack: Attempt, outcome: str, problem: str) -> None:
    """The attack gets through."""
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
def test_a_rule_that_fell_down_the_ladder_is_found(
    claim: str, outcome: str, mechanism: str, expected: Outcome, falls: bool
) -> None:
    """Although the agent says the same as what happened: nothing is wrong with the run, but with the node."""
    attack = {"seen": WORKED, "killed": KILLED, "denied": DENIED}[outcome]
    claims = frozenset({(claim, mechanism)})
    got = result(attack, alert(outcome, mechanism), expected=expected, claims=claims)
    assert problems_of(got) == []
    assert bool(shortfall_of(got)) is falls
    assert judge(got, None).expected == expected
    assert bool(judge(got, None).shortfall) is falls


def test_a_rule_that_nobody_sees_any_more_fell_furthest() -> None:
    """Its hook could not be had, and nothing else sees the event."""
    got = result(WORKED, claims=frozenset(), expected="denied")
    assert shortfall_of(got) == "expected to be denied here, and was blind: `ringfence probe` says why"


@pytest.mark.parametrize(
    ("strict", "ci", "status"),
    [(None, "", 0), (None, "true", 1), (True, "", 1), (False, "true", 0)],
)
def test_strict_makes_a_fall_a_failure(
    strict: bool | None,
    ci: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As asked, else in CI. It is said in any case."""
    monkeypatch.setenv("CI", ci)
    fallen = result(WORKED, alert("seen", "observe"), claims=frozenset({("alert", "observe")}))
    options = argparse.Namespace(strict=strict, output="table")
    assert policy_test._show(options, [judge(fallen, None)], []) == status
    assert (
        "some-rule: `attack`: expected to be killed here, and was seen by observe" in capsys.readouterr().out
    )


def test_what_the_kernel_runs_only_shows_whether_it_ran() -> None:
    """Killed and denied look alike from outside; a detector tells of what another rule may stop."""
    host = CASE._replace(host=True)
    assert problems_of(result(DID_NOT, alert("killed", "kill"), case=host)) == []
    (problem,) = problems_of(result(WORKED, alert("killed", "kill"), case=host))
    assert "told as killed" in problem
    detector = host._replace(detector=True)
    assert problems_of(result(DID_NOT, alert("seen", "observe"), case=detector, **TELLS)) == []


@pytest.mark.parametrize(
    ("outcome", "lsm", "with_lsm"),
    [
        ("killed", None, "denied"), ("blind", None, "denied"), ("denied", None, "denied"),
        ("seen", None, "seen"), ("seen", "denied", "denied"), ("killed", "killed", "killed"),
    ],
)  # fmt: skip
def test_what_bpf_lsm_makes_of_a_case(outcome: Outcome, lsm: Outcome | None, with_lsm: Outcome) -> None:
    """A stop becomes a denial where the case says nothing else; telling stays telling."""
    assert CASE._replace(outcome=outcome, lsm=lsm).with_lsm == with_lsm
