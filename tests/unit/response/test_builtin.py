# SPDX-License-Identifier: Apache-2.0
"""Which built-in rule names a verdict."""

from __future__ import annotations

import pytest

from ringfence.abi import NO_RULE, Action, EventKind, Tamper
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
