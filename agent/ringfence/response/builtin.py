# SPDX-License-Identifier: Apache-2.0
"""The built-in rules of self-defence, which are in force independent of policies.

The kernel decides according to the agent's configuration (`self_defence`); these rules name its decisions.
"""

from __future__ import annotations

from ringfence.abi import NO_RULE, Action, EventKind, Mechanism, Tamper
from ringfence.events import Event, TamperEvent
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.tiers import Outcome

__all__ = ["POLICY", "BuiltinRules", "is_condemned"]

#: used as the name of their policy
POLICY = "self-defence"
CONDEMNED = "container-condemned"
_ATTACK = ("T1562.001",)


class BuiltinRules:
    """The rules for the configuration (Config.defence) and the mechanism of this node (Kernel.guarding)."""

    def __init__(self, defence: str, guarding: str) -> None:
        strongest = Outcome(Action.DENY, Mechanism.HOOK if guarding == "hook" else Mechanism.LSM)
        if guarding == "calls":
            strongest = Outcome(Action.KILL, Mechanism.KILL, "this node cannot deny it before its effect")
        seen = Outcome(Action.ALERT, Mechanism.OBSERVE, "recognised by its name only, or only a read")
        looks = seen if guarding == "calls" else strongest
        rules = (
            ("agent-tamper", "A container accesses the agent or its resources", "critical", strongest),
            ("agent-name", "A call names a file like one of the agent's", "high", seen),
            ("agent-look", "A container reads from the agent's process", "medium", looks),
        )
        self._rules: dict[str, CompiledRule] = {
            rule: _rule(rule, title, severity, outcome, enforced=defence == "deny")
            for rule, title, severity, outcome in rules
        }
        self._rules[CONDEMNED] = _rule(
            CONDEMNED,
            "A container was condemned: a call for which a task was killed may have had an effect",
            "critical",
            Outcome(Action.KILL, Mechanism.KILL, "the call could not be denied before its effect"),
            enforced=True,
        )

    @property
    def all(self) -> list[CompiledRule]:
        """All rules."""
        return list(self._rules.values())

    def of(self, event: Event) -> CompiledRule | None:
        """Returns the rule of a self-defence event, or of a verdict on a condemned container; else None."""
        if not isinstance(event, TamperEvent):
            condemned = event.action == Action.KILL and event.rule == NO_RULE
            return self._rules[CONDEMNED] if condemned else None
        if event.what == Tamper.CONDEMNED:
            return self._rules[CONDEMNED]
        if event.what & Tamper.MAYBE:
            return self._rules["agent-name"]
        return self._rules["agent-look" if event.what >= Tamper.LOOK else "agent-tamper"]


def is_condemned(rule: CompiledRule | None) -> bool:
    """Returns True if the rule says that a container was condemned: no attempt of its own."""
    return rule is not None and (rule.policy, rule.rule_id) == (POLICY, CONDEMNED)


def _rule(rule: str, title: str, severity: str, outcome: Outcome, *, enforced: bool) -> CompiledRule:
    return CompiledRule(
        number=NO_RULE,
        policy=POLICY,
        rule_id=rule,
        title=title,
        severity=severity,
        attack=_ATTACK,
        references=(),
        file="",
        line=0,
        events=frozenset((EventKind.AGENT_TAMPER,)),
        asked_action=Action.DENY,
        action=outcome.action if enforced else Action.ALERT,
        mechanism=outcome.mechanism if enforced else Mechanism.OBSERVE,
        mode="enforce" if enforced else "audit",
        enforced=outcome,
    )
