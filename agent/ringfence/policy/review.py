# SPDX-License-Identifier: Apache-2.0
"""What is wrong with policies that load: rules that would stop every container or the node, that contradict
each other, that except all they match; and what their authors should look at again. For `policy check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from ringfence.abi import Action, EventKind
from ringfence.errors import Problem
from ringfence.policy.lower import TooMany, by_program, lower
from ringfence.policy.model import Match, Policy, PolicySet, Rule
from ringfence.policy.operand import Bits, Conjunction, Predicate, Texts, Values
from ringfence.policy.ordinary import matched

__all__ = ["Note", "mistakes", "remarks"]


class Note(NamedTuple):
    """Something to look at again. `level`: note or warning."""

    file: str
    line: int
    column: int
    rule: str
    level: str
    note: str


def mistakes(policies: PolicySet) -> list[Problem]:
    """What makes a set that loads one that must not be loaded."""
    found: list[Problem] = []
    seen: dict[object, tuple[Policy, Rule]] = {}
    for policy in policies.policies:
        for rule in policy.rules:
            found += _lock_out(policy, rule)
            found += _empty(rule)
            key = (policy.selector, rule.events, _frozen(rule.match), tuple(map(_frozen, rule.exceptions)))
            _, other = seen.setdefault(key, (policy, rule))
            if other is not rule and other.action is not rule.action:
                where = f"{other.place.file}:{other.place.line}"
                what = f"asks for {rule.action.label}, and rule {other.id} ({where}) for {other.action.label}"
                found.append(_problem(rule, f"{what}: the same events of the same containers"))
    return found


def remarks(policies: PolicySet) -> Iterator[Note]:
    """What may be meant, and mostly is not."""
    for policy in policies.policies:
        for rule in policy.rules:
            for sample in matched(rule):
                text = f"matches what containers do lawfully: {sample.what}"
                yield Note(rule.place.file, rule.place.line, rule.place.column, rule.id, "warning", text)
            yield from _unknown_objects(rule)


def _problem(rule: Rule, message: str) -> Problem:
    return Problem(rule.place.file, rule.place.line, rule.place.column, f"rule {rule.id}", message)


def _lock_out(policy: Policy, rule: Rule) -> Iterator[Problem]:
    """A rule that stops what every container must do, or what the host itself does.

    A policy for chosen containers may do the first: their owner knows. Nobody may do the second.
    """
    if rule.action is Action.ALERT:
        return
    for sample in matched(rule):
        if not sample.vital:
            continue
        if sample.kind is EventKind.KERNEL_HELPER:
            yield _problem(rule, f"would lock the node out: it would {rule.action.label} {sample.what}")
        elif policy.selector.only is None:
            yield _problem(
                rule,
                f"would lock every container of the node out: it would {rule.action.label} {sample.what}; "
                "say more in `match`, or choose containers",
            )


def _frozen(block: Mapping[EventKind, Match]) -> object:
    # What is asked, not how it is written.
    return tuple(
        (event, frozenset((c.operand, frozenset(c.alternatives)) for c in match))
        for event, match in sorted(block.items())
    )


def _empty(rule: Rule) -> Iterator[Problem]:
    """An exception that holds whenever its rule does: nothing of the rule is left."""
    for event in rule.events:
        try:
            atoms = lower(rule, event)
        except TooMany:
            continue
        plain = [
            by_program(c, trusted=False)  # as written: what the rule has of a program in any state
            for block in rule.exceptions
            for c in _conjunctions(block[event])
        ]
        if plain and all(any(_implies(atom.matches, exception) for exception in plain) for atom in atoms):
            yield _problem(
                rule, f"an exception takes all that it matches on {event.label}: it can never hold"
            )
            return


def _conjunctions(match: Match) -> list[Conjunction]:
    found: list[Conjunction] = [()]
    for condition in match:
        found = [(*left, *right) for left in found for right in condition.alternatives][:256]
    return found


def _implies(match: Conjunction, exception: Conjunction) -> bool:
    """Whether every event of the first is one of the second, as far as predicates of one kind tell."""
    return all(any(_within(one, wanted) for one in match) for wanted in exception)


def _within(one: Predicate, wanted: Predicate) -> bool:
    if one == wanted:
        return True
    if isinstance(one, Values) and isinstance(wanted, Values):
        same = (one.dim, one.mask) == (wanted.dim, wanted.mask)
        return same and not one.negated and not wanted.negated and one.values <= wanted.values
    if isinstance(one, Bits) and isinstance(wanted, Bits) and one.dim == wanted.dim:
        some = not wanted.any or bool(one.all & wanted.any) or (bool(one.any) and not one.any & ~wanted.any)
        return some and not wanted.all & ~one.all and not wanted.none & ~one.none
    if isinstance(one, Texts) and isinstance(wanted, Texts) and not (one.negated or wanted.negated):
        begins = all(any(p.startswith(q) for q in wanted.prefixes) for p in one.prefixes)
        return begins and all(wanted.holds(text) for text in one.exact)
    return False


#: where the objects of a kind can be looked up on this node
_ROOTS = {"proc": "/proc", "sysfs": "/sys"}


def _unknown_objects(rule: Rule) -> Iterator[Note]:
    """Names that this node does not have, where one that it has is near: mostly a slip of the pen."""
    for event in rule.events:
        for match in (rule.match[event], *(block[event] for block in rule.exceptions)):
            for condition in match:
                for word in condition.written.replace("not ", "").split(", "):
                    path = _path_of(condition.operand, word)
                    near = _near(path) if path and not path.exists() else ""
                    if near:
                        text = f"{condition.operand}: {word!r} is not on this node; did you mean {near!r}?"
                        yield Note(
                            rule.place.file, condition.line or rule.place.line, condition.column, rule.id,
                            "warning", text,
                        )  # fmt: skip
        return  # the other events of a rule have the same operands


def _path_of(operand: str, word: str) -> Path | None:
    if "*" in word or not word.isprintable():
        return None
    if operand == "sysctl":
        return Path("/proc/sys", word.removeprefix("/proc/sys/").replace(".", "/"))
    kind, colon, below = word.partition(":")
    if operand == "path" and colon and kind in _ROOTS:
        return Path(_ROOTS[kind], below.lstrip("/"))
    return None


def _near(path: Path) -> str:
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    found = get_close_matches(path.name, names, n=1, cutoff=0.8)
    return found[0] if found else ""
