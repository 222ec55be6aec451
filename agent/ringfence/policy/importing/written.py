# SPDX-License-Identifier: Apache-2.0
"""Writes translated rules as policies, and removes those that `ringfence policy check` would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from ringfence.errors import PolicyError, Problem
from ringfence.policy.compiler import compile_policies
from ringfence.policy.importing.draft import Draft, one_line
from ringfence.policy.load import API_VERSION, KIND, load_bytes
from ringfence.policy.review import refuse
from ringfence.policy.tiers import NodeTiers

__all__ = ["write"]

MAX_RULES = 1024
_MAX_TITLE = 120
_MAX_DESCRIPTION = 600
_RULE = re.compile(r"\s*- id: (\S+)")
_NAME = "policies"

Named = tuple[str, Draft]  # the id of a rule, and the rule


class _Dumper(yaml.SafeDumper):
    """Writes every value out: the reader of policies refuses anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def write(drafts: Sequence[Draft], refused: list[tuple[Draft, str]]) -> str:
    """Returns the policies as YAML; "" if no rule is left. Adds rules that cannot be loaded to `refused`."""
    rules = _named(drafts[:MAX_RULES])
    refused += [(draft, f"more than {MAX_RULES} rules in one import") for draft in drafts[MAX_RULES:]]
    while rules:
        written = _documents(rules)
        problems = _problems(written)
        if not problems:
            return written
        bad = _blamed(written, problems)
        refused += [(draft, bad[rule]) for rule, draft in rules if rule in bad]
        rules = [(rule, draft) for rule, draft in rules if rule not in bad]
    return ""


def _named(drafts: Iterable[Draft]) -> list[Named]:
    """Returns the rules with ids: the name of the policy, and a number from the second one on."""
    taken: set[str] = set()
    found = []
    for draft in drafts:
        number, rule = 1, draft.policy
        while rule in taken:
            number += 1
            rule = f"{draft.policy}-{number}"
        taken.add(rule)
        found.append((rule, draft))
    return found


def _documents(rules: Iterable[Named]) -> str:
    """Returns one policy for each group of rules with the same name and the same containers."""
    groups: dict[str, list[Named]] = {}
    for rule, draft in rules:
        groups.setdefault(repr((draft.policy, draft.selector)), []).append((rule, draft))
    documents = [_policy(group) for group in groups.values()]
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100, explicit_start=True)


def _policy(group: Sequence[Named]) -> dict[str, Any]:
    rule, draft = group[0]
    about = one_line(draft.description, _MAX_DESCRIPTION)
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": rule} | ({"description": about} if about else {}),
        "spec": {
            "selector": draft.selector or {"containers": "all"},
            "mode": "enforce",
            "rules": [_rule(rule, draft) for rule, draft in group],
        },
    }


def _rule(rule: str, draft: Draft) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": rule,
        "title": one_line(draft.title, _MAX_TITLE),
        "severity": draft.severity,
        "attack": list(draft.attack),
        "event": draft.event,
        "match": draft.match or "any",
        "exceptions": draft.exceptions,
        "action": draft.action,
    }
    return {key: value for key, value in found.items() if value}


def _problems(written: str) -> list[Problem]:
    try:
        policies = load_bytes({_NAME: written.encode()})
        compile_policies(policies, NodeTiers.usual())
        refuse(policies)
    except PolicyError as error:
        return error.problems
    return []


def _blamed(written: str, problems: Iterable[Problem]) -> dict[str, str]:
    """Returns the rules with errors, each with its first. An error of a policy is one of all its rules."""
    rules: dict[int, str] = {}
    starts = []
    lines = written.splitlines()
    for number, line in enumerate(lines, 1):
        if found := _RULE.match(line):
            rules[number] = found[1]
        elif line == "---":
            starts.append(number)
    bad: dict[str, str] = {}
    for problem in problems:
        start = max((one for one in starts if one <= problem.line), default=0)
        end = min((one for one in starts if one > problem.line), default=len(lines) + 1)
        of_policy = [one for one in rules if start <= one < end]
        own = [one for one in of_policy if one <= problem.line][-1:]
        for one in own or of_policy or rules:  # without a place: nothing can be loaded
            bad.setdefault(rules[one], problem.message)
    return bad
