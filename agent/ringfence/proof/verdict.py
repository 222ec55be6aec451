# SPDX-License-Identifier: Apache-2.0
"""Whether a case went as it must, and its line in the table."""

from __future__ import annotations

from typing import Any, NamedTuple

from ringfence.proof.campaign import Result
from ringfence.proof.cases import Case

__all__ = ["Judged", "judge", "outcome_of", "problems_of"]

_OUTCOMES = {"deny": "denied", "kill": "killed", "alert": "seen"}
_IN_AUDIT = {"denied": "would-deny", "killed": "would-kill", "seen": "seen"}


class Judged(NamedTuple):
    """One case, both modes together. `outcome`: denied, killed, seen, absent, untried; `problems`: none is
    good."""

    case: Case
    outcome: str
    mechanism: str
    latency_us: int
    problems: tuple[str, ...]
    note: str

    def record(self) -> dict[str, Any]:
        """As JSON shows it."""
        case = self.case
        return {
            "rule": case.rule,
            "rows": list(case.rows),
            "attack": case.attack or f"start: {case.bundle}",
            "twin": case.twin or "start: the same, lawful",
            "optional": case.optional,
            "detector": case.detector,
            **{key: value for key, value in self._asdict().items() if key != "case"},
        }


def judge(enforced: Result | None, audited: Result | None) -> Judged:
    """The verdict on one case that was run in one mode or in both."""
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
    note = first.missing or (f"this kernel has no {first.attack.call} of it" if first.attack.absent else "")
    return Judged(first.case, outcome, mechanism, latency, tuple(problems), note)


def outcome_of(result: Result) -> tuple[str, str]:
    """What became of the attack, and by what."""
    if result.missing:
        return "untried", ""
    if result.attack.absent:
        return "absent", ""
    if not result.alerts:
        return "blind", ""
    return str(result.alerts[0]["outcome"]), str(result.alerts[0]["mechanism"])


def problems_of(result: Result) -> list[str]:
    """What did not go as it must."""
    if result.missing:
        return []
    return _attack_problems(result) + _twin_problems(result)


def _attack_problems(result: Result) -> list[str]:
    attack = result.attack
    if attack.absent:
        return []
    if not attack.tried:
        return [f"the attack was not tried: {attack.said}"]
    if not result.alerts:
        return [f"the attack was not told of; it ended: {attack.said or attack.status}"]
    outcome, mechanism = outcome_of(result)
    if result.mode == "audit":
        problems = []
        if attack.killed or attack.refused:
            problems.append(
                "the attack was stopped although the mode is audit, or the kernel refuses it anyway"
            )
        wanted = {_IN_AUDIT[_OUTCOMES[action]] for action, _ in result.claims}
        return problems + ([f"told as {outcome}"] if outcome not in wanted else [])
    problems = []
    claimed = {(_OUTCOMES[action], by if action != "alert" else "observe") for action, by in result.claims}
    if (outcome, mechanism) not in claimed:
        said = " or ".join(f"{what} by {by}" for what, by in sorted(claimed))
        problems.append(f"the attack was {outcome} by {mechanism}, and the agent says {said}")
    if attack.killed != (outcome == "killed") or (attack.refused and outcome != "denied"):
        problems.append(f"told as {outcome}, but the attack ended: {attack.said or attack.status}")
    if outcome == "denied" and not attack.refused:
        problems.append(f"told as denied, but the attack ended: {attack.said or attack.status}")
    return problems


def _twin_problems(result: Result) -> list[str]:
    twin = result.twin
    problems = []
    if not twin.tried:
        problems.append(f"the twin was not tried: {twin.said}")
    if twin.killed or twin.refused:
        problems.append("the twin was killed" if twin.killed else "the twin was refused")
    if result.twin_verdicts:
        problems.append(f"the twin met a rule: {dict(result.twin_verdicts)}")
    problems += [f"the twin was told of by {alert['rule']['id']}" for alert in result.twin_alerts]
    return problems
