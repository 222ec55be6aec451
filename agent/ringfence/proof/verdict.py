# SPDX-License-Identifier: Apache-2.0
"""Judges the results of a case, and makes its line in the table.

Three facts are compared: the outcome of the attack, the effective action that the agent states for
this node, and the outcome that the case expects of a node like this one. If the first two differ,
there is a problem. If both are weaker than the third, the rule was degraded: see `shortfall`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ringfence.proof.campaign import Result
from ringfence.proof.cases import Case

__all__ = ["Judged", "judge", "outcome_of", "problems_of", "shortfall_of"]

_OUTCOMES = {"deny": "denied", "kill": "killed", "alert": "seen"}
_IN_AUDIT = {"denied": "would-deny", "killed": "would-kill", "seen": "seen"}
#: strongest first
_STRENGTH = ("denied", "killed", "seen", "blind")


class Judged(NamedTuple):
    """One case, both modes together.

    `outcome`: denied, killed, seen, blind, absent, untried; `expected`: the same, for a node like this
    one. `problems`: empty if the case passed. `shortfall`: why the outcome is weaker than expected;
    empty: it is not.
    """

    case: Case
    outcome: str
    mechanism: str
    expected: str
    latency_us: int
    problems: tuple[str, ...]
    shortfall: str
    note: str

    def record(self) -> dict[str, Any]:
        """Returns the JSON record."""
        case = self.case
        return {
            "rule": case.rule,
            "rows": list(case.rows),
            "attack": case.tried,
            "twin": case.lawful,
            "optional": case.optional,
            "detector": case.detector,
            **{key: value for key, value in self._asdict().items() if key != "case"},
        }


def judge(enforced: Result | None, audited: Result | None) -> Judged:
    """Judges one case that was run in one mode or in both."""
    first = enforced or audited
    assert first is not None
    problems = [
        f"{result.mode}: {problem}"
        for result in (enforced, audited)
        if result
        for problem in problems_of(result)
    ]
    outcome, mechanism = outcome_of(first)
    latency = int(first.alerts[0].get("latency_us", 0)) if first.alerts else 0
    note = first.missing or (
        f"this kernel does not support {first.attack.call} in this form" if first.attack.absent else ""
    )
    shortfall = shortfall_of(enforced) if enforced else ""
    return Judged(
        first.case, outcome, mechanism, first.expected, latency, tuple(problems), shortfall, note
    )  # fmt: skip


def outcome_of(result: Result) -> tuple[str, str]:
    """Returns the outcome of the attack and the mechanism that caused it."""
    if result.missing:
        return "untried", ""
    if result.attack.absent:
        return "absent", ""
    if not result.alerts:
        return "blind", ""
    return str(result.alerts[0]["outcome"]), str(result.alerts[0]["mechanism"])


def shortfall_of(result: Result) -> str:
    """Returns why the outcome is weaker than required on a node like this one; empty: it is not."""
    outcome, mechanism = outcome_of(result)
    if outcome not in _STRENGTH or _STRENGTH.index(outcome) <= _STRENGTH.index(result.expected):
        return ""
    by = f" by {mechanism}" if mechanism else ""
    return f"expected to be {result.expected} here, but was {outcome}{by}: `ringfence probe` shows why"


def problems_of(result: Result) -> list[str]:
    """Returns the differences from the required behaviour."""
    if result.missing:
        return []
    return _attack_problems(result) + _twin_problems(result)


def _attack_problems(result: Result) -> list[str]:
    attack = result.attack
    if attack.absent:
        return []
    if not attack.tried:
        return [f"the attack was not run: {attack.said}"]
    if not result.alerts:
        said = attack.said or attack.status
        if result.claims:
            return [f"the attack was not reported; it ended: {said}"]
        return [f"no rule can see it here, but it ended: {said}"] if attack.killed else []
    return _in_audit(result) if result.mode == "audit" else _enforced(result)


def _in_audit(result: Result) -> list[str]:
    outcome, _ = outcome_of(result)
    problems = []
    if result.attack.stopped:
        problems.append("the attack was stopped although the mode is audit, or the kernel itself refused it")
    wanted = {_IN_AUDIT[_OUTCOMES[action]] for action, _ in result.claims}
    return problems + ([f"reported as {outcome}"] if outcome not in wanted else [])


def _enforced(result: Result) -> list[str]:
    attack, (outcome, mechanism) = result.attack, outcome_of(result)
    problems = []
    claimed = {(_OUTCOMES[action], by if action != "alert" else "observe") for action, by in result.claims}
    if (outcome, mechanism) not in claimed:
        said = " or ".join(f"{what} by {by}" for what, by in sorted(claimed))
        problems.append(f"the attack was {outcome} by {mechanism}, but the agent stated {said or 'nothing'}")
    if not _ended_as(result, outcome):
        problems.append(f"reported as {outcome}, but the attack ended: {attack.said or attack.status}")
    return problems


def _ended_as(result: Result, outcome: str) -> bool:
    """Returns True if the attack ended as reported. Of a usermode helper only "did it run" is known."""
    attack = result.attack
    if result.case.host:
        # A detector only reports; another rule may stop the attack that it reports.
        return attack.stopped == (outcome in ("denied", "killed")) or result.case.detector
    return attack.killed == (outcome == "killed") and attack.refused == (outcome == "denied")


def _twin_problems(result: Result) -> list[str]:
    twin = result.twin
    problems = []
    if not twin.tried:
        problems.append(f"the twin was not run: {twin.said}")
    if twin.killed or twin.refused:
        problems.append("the twin was killed" if twin.killed else "the twin was refused")
    if result.twin_verdicts:
        problems.append(f"the twin matched a rule: {dict(result.twin_verdicts)}")
    problems += [f"the twin was reported by {alert['rule']['id']}" for alert in result.twin_alerts]
    return problems
