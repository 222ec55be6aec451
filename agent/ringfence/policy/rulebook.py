# SPDX-License-Identifier: Apache-2.0
"""The rule book: the meaning of rule numbers, in a file. An agent that takes over from one that was killed
can name the rules of records that were not read.

One JSON document: generation -> list of rules. It is written whole and renamed, so it is never partial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.tiers import Outcome
from ringfence_linux.atomicfile import replace_file

__all__ = ["FILE", "RuleBook", "Rules", "read", "write"]

#: its name in the state directory
FILE = "rules.json"

Rules = Mapping[int, CompiledRule]  # rule number -> rule


class RuleBook(NamedTuple):
    """Generations by number; the highest is, or is about to be, in force."""

    generations: Mapping[int, Rules]


def write(path: Path, book: RuleBook) -> None:
    """Raises OSError, and leaves what was there."""
    document = {n: [_plain(rule) for rule in rules.values()] for n, rules in book.generations.items()}
    replace_file(path, json.dumps(document).encode())


def read(path: Path) -> RuleBook | None:
    """None when there is no such file, or what is there is no rule book of this build."""
    try:
        document = json.loads(path.read_bytes())
        return RuleBook({int(n): _rules(rules) for n, rules in document.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _rules(rules: list[dict[str, Any]]) -> Rules:
    return {rule.number: rule for rule in map(_rule, rules)}


def _plain(rule: CompiledRule) -> dict[str, Any]:
    return {**rule._asdict(), "events": sorted(rule.events), "enforced": list(rule.enforced)}


def _rule(plain: dict[str, Any]) -> CompiledRule:
    action, mechanism, why = plain["enforced"]
    changed = {
        "attack": tuple(plain["attack"]),
        "references": tuple(plain["references"]),
        "events": frozenset(map(EventKind, plain["events"])),
        "asked_action": Action(plain["asked_action"]),
        "action": Action(plain["action"]),
        "mechanism": Mechanism(plain["mechanism"]),
        "enforced": Outcome(Action(action), Mechanism(mechanism), why),
    }
    return CompiledRule(**{**plain, **changed})
