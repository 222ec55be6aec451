# SPDX-License-Identifier: Apache-2.0
"""The rule book: a file with the meaning of rule numbers.

With it, an agent that takes over from a killed one can name the rules of records that were not read yet. It
is one JSON document, generation -> list of rules, written as a whole and renamed, so it is never partial.
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

#: the name of the file in the state directory
FILE = "rules.json"

Rules = Mapping[int, CompiledRule]  # rule number -> rule


class RuleBook(NamedTuple):
    """Rules by generation number; the highest generation is in force, or about to be."""

    generations: Mapping[int, Rules]


def write(path: Path, book: RuleBook) -> None:
    """Writes the rule book. On OSError the previous file remains."""
    document = {n: [_plain(rule) for rule in rules.values()] for n, rules in book.generations.items()}
    replace_file(path, json.dumps(document).encode())


def read(path: Path) -> RuleBook | None:
    """Reads the rule book; None if there is no file, or it is not a rule book of this build."""
    try:
        document = json.loads(path.read_bytes())
        return RuleBook({int(n): _rules(rules) for n, rules in document.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _rules(rules: list[dict[str, Any]]) -> Rules:
    return {rule.number: rule for rule in map(_rule, rules)}


def _plain(rule: CompiledRule) -> dict[str, Any]:
    events = {"events": sorted(rule.events), "written": sorted(rule.written)}
    return {**rule._asdict(), **events, "enforced": list(rule.enforced)}


def _rule(plain: dict[str, Any]) -> CompiledRule:
    action, mechanism, why = plain["enforced"]
    changed = {
        "attack": tuple(plain["attack"]),
        "references": tuple(plain["references"]),
        "events": frozenset(map(EventKind, plain["events"])),
        "written": frozenset(map(EventKind, plain["written"])),
        "asked_action": Action(plain["asked_action"]),
        "action": Action(plain["action"]),
        "mechanism": Mechanism(plain["mechanism"]),
        "enforced": Outcome(Action(action), Mechanism(mechanism), why),
    }
    return CompiledRule(**{**plain, **changed})
