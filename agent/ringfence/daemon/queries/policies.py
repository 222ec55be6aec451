# SPDX-License-Identifier: Apache-2.0
"""The answer to `ringfence policy list`: every rule in force, and its effective action on this
node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.daemon.policies.manager import PolicyManager
from ringfence.export.escape import escape
from ringfence.policy import CompiledRule, Policy
from ringfence.policy.compiled import BlindRule
from ringfence.policy.model import Rule
from ringfence.policy.probe_rules import ProbeRule

__all__ = ["PolicyQuery"]

Request = Mapping[str, Any]


class PolicyQuery:
    """Called in the thread of the local socket."""

    def __init__(self, manager: PolicyManager, mode: str) -> None:
        """`mode` is the agent's, which rules on custom probes follow; `policy` leaves each policy
        its own.
        """
        self._manager, self._mode = manager, mode

    def rules(self, _request: Request) -> list[dict[str, Any]]:
        """One row for each rule, whatever its numbers, and one for the events on which it is blind."""
        compiled = self._manager.compiled
        if compiled is None:
            return []
        rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        for rule in compiled.rules.values():  # one rule may have several numbers
            row = rows.setdefault((rule.rule_id, rule.action, rule.mechanism), _rule(rule))
            row["events"] = sorted({*row["events"], *(kind.label for kind in rule.events)})
        probe_rules = ((policy, rule) for policy in compiled.policies.policies for rule in policy.probe_rules)
        return [
            *rows.values(),
            *(_blind_rule(one, self._mode) for one in compiled.blind),
            *(_probe_rule(policy, rule, self._mode) for policy, rule in probe_rules),
        ]


def _rule(rule: CompiledRule) -> dict[str, Any]:
    return {
        "rule": rule.rule_id,
        "title": escape(rule.title),
        "severity": rule.severity,
        "policy": rule.policy,
        "events": [],
        "attack": list(rule.attack),
        "mode": rule.mode,
        "asked": rule.asked_action.label,
        "action": rule.action.label,
        "enforced": rule.enforced.action.label,
        "why": rule.enforced.why,
        "mechanism": rule.mechanism.label,
        "file": escape(rule.file),
        "line": rule.line,
    }


def _blind_rule(blind: BlindRule, mode: str) -> dict[str, Any]:
    """Returns the row of a rule that this node neither enforces nor reports, with the reason."""
    return {
        **_as_written(blind.policy, blind.rule, mode),
        "events": sorted(kind.label for kind in blind.events),
        "action": "none",
        "enforced": "none",
        "why": blind.why,
        "mechanism": "none",
    }


def _probe_rule(policy: Policy, rule: ProbeRule, mode: str) -> dict[str, Any]:
    row = _as_written(policy, rule, mode)
    return {
        **row,
        "events": [rule.label],
        "action": rule.action.label if row["mode"] == "enforce" else "alert",
        "enforced": rule.action.label,
        "why": "a custom probe: user space acts, after the event",
        "mechanism": "observe",
    }


def _as_written(policy: Policy, rule: Rule | ProbeRule, mode: str) -> dict[str, Any]:
    """Returns the part of a row that no node changes. `mode`: the agent's."""
    return {
        "rule": rule.id,
        "title": escape(rule.title),
        "severity": rule.severity,
        "policy": policy.name,
        "attack": list(rule.attack),
        "mode": policy.mode if mode == "policy" else mode,
        "asked": rule.action.label,
        "file": escape(rule.place.file),
        "line": rule.place.line,
    }
