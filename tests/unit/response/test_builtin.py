# SPDX-License-Identifier: Apache-2.0
"""Which built-in rule names a verdict."""

from __future__ import annotations

import pytest

from ringfence.abi import NO_RULE, Action, EventKind, Mechanism, Tamper
from ringfence.response.builtin import BuiltinRules
from ringfence.response.describe import describe
from ringfence.wire import make


@pytest.mark.parametrize(
    ("what", "rule"),
    [
        (Tamper.MAP, "agent-tamper"),
        (Tamper.FILE | Tamper.MAYBE, "agent-name"),
        (Tamper.LOOK, "agent-look"),
        (Tamper.CONDEMNED, "container-condemned"),
    ],
)
def test_an_attempt_has_a_rule_by_its_kind(what: int, rule: str) -> None:
    """In every configuration."""
    for defence in ("deny", "alert", "off"):
        found = BuiltinRules(defence, "calls").of(make(EventKind.AGENT_TAMPER, what=int(what)))
        assert found is not None
        assert found.rule_id == rule


def test_a_kill_without_a_rule_is_of_a_condemned_container() -> None:
    """Every other verdict without a number has no built-in rule."""
    rules = BuiltinRules("deny", "calls")
    killed = make(EventKind.SYS_UNSHARE, rule=NO_RULE, action=int(Action.KILL))
    found = rules.of(killed)
    assert found is not None
    assert (found.rule_id, found.action, found.severity) == ("container-condemned", Action.KILL, "critical")
    assert rules.of(killed._replace(rule=3)) is None
    assert rules.of(killed._replace(action=int(Action.ALERT))) is None


def test_the_call_is_named_for_which_a_container_was_condemned() -> None:
    """By its event; an unknown number is shown as it is."""
    for detail, text in ((int(EventKind.SYS_UNSHARE), "unshare"), (1 << 40, str(1 << 40))):
        event = make(EventKind.AGENT_TAMPER, what=int(Tamper.CONDEMNED), detail=detail)
        assert describe(event)["killed_for"] == text


_DENY, _KILL = (Action.DENY, Mechanism.LSM), (Action.KILL, Mechanism.KILL)
_SEEN = (Action.ALERT, Mechanism.OBSERVE)


@pytest.mark.parametrize("defence", ["deny", "alert"])
@pytest.mark.parametrize(
    ("guarding", "outcomes"),
    [
        ("lsm", {"agent-tamper": _DENY, "agent-name": _SEEN, "agent-look": _DENY}),
        ("calls", {"agent-tamper": _KILL, "agent-name": _SEEN, "agent-look": _SEEN}),
    ],
)
def test_the_rules_do_what_the_configuration_and_the_node_allow(
    defence: str, guarding: str, outcomes: dict[str, tuple[Action, Mechanism]]
) -> None:
    """`alert` only reports; a condemned container is killed in every configuration."""
    rules = {rule.rule_id: rule for rule in BuiltinRules(defence, guarding).all}
    condemned = rules.pop("container-condemned")
    assert (condemned.action, condemned.mechanism, condemned.mode) == (*_KILL, "enforce")
    assert (condemned.enforced.action, condemned.enforced.mechanism) == _KILL
    enforced = {name: (rule.enforced.action, rule.enforced.mechanism) for name, rule in rules.items()}
    assert enforced == outcomes
    done = {name: (rule.action, rule.mechanism) for name, rule in rules.items()}
    assert done == (outcomes if defence == "deny" else dict.fromkeys(outcomes, _SEEN))
    assert {rule.mode for rule in rules.values()} == {"enforce" if defence == "deny" else "audit"}


def test_the_rules_are_no_rules_of_a_file() -> None:
    """Their severities are those of docs/explanation/self-defence.md; they concern attacks on the agent."""
    rules = BuiltinRules("deny", "lsm").all
    assert {rule.rule_id: rule.severity for rule in rules} == {
        "agent-tamper": "critical",
        "agent-name": "high",
        "agent-look": "medium",
        "container-condemned": "critical",
    }
    for rule in rules:
        assert (rule.number, rule.policy, rule.file, rule.line) == (NO_RULE, "self-defence", "", 0)
        assert (rule.attack, rule.asked_action) == (("T1562.001",), Action.DENY)
        assert rule.events == {EventKind.AGENT_TAMPER}


def test_a_look_that_may_be_one_is_named_so() -> None:
    """By the name of a file only, whatever it is about; a look is everything from LOOK on."""
    rules = BuiltinRules("deny", "lsm")

    def of(what: int) -> str:
        found = rules.of(make(EventKind.AGENT_TAMPER, what=what))
        return found.rule_id if found else ""

    assert of(Tamper.LOOK | Tamper.MAYBE) == "agent-name"
    assert of(Tamper.LOOK | Tamper.PROC) == "agent-look"
    assert of(Tamper.LOOK - 1) == "agent-tamper"
