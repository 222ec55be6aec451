# SPDX-License-Identifier: Apache-2.0
"""Finds errors in policies that load, and remarks for their authors.

Errors are rules that would stop every container or the node, that contradict each other, or that have
exceptions for everything they match. `refuse` is called for every set before it is used: by `policy check`,
`agent --check` and the agent itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from ringfence.abi import Action, EventKind
from ringfence.errors import PolicyError, Problem
from ringfence.policy.lower import Atom, TooMany, by_program, lower
from ringfence.policy.model import Match, Policy, PolicySet, Rule, Traits
from ringfence.policy.operand import Conjunction, Kind, Values
from ringfence.policy.ordinary import matched
from ringfence.policy.overlap import covers, implies, may_overlap
from ringfence.policy.samples import Sample, rule_matches
from ringfence.policy.unavailable_names import absent_names
from ringfence.policy.vocabulary import EVENTS

__all__ = ["Note", "find_errors", "refuse", "remarks"]

#: the maximum number of pairs of rules on one event that are compared
_MOST_PAIRS = 50_000
_K = EventKind
#: mount point in a container -> how files on it are named in policies
_ROOTS = {
    "/proc/": "write 'proc:{}'",
    "/sys/": "write 'sysfs:{}'",
    "/dev/": "name devices by number (event device.access), other files as 'tmpfs:{}'",
}


class Note(NamedTuple):
    """A remark for a rule's author. `level`: note or warning."""

    file: str
    line: int
    column: int
    rule: str
    level: str
    note: str


#: what a program of an image cannot choose: it, or what the container was given
_NARROW = ("exe", "tree", "mount")


def refuse(policies: PolicySet) -> None:
    """Raises PolicyError with every error in a set that loads but must not be used."""
    if wrong := find_errors(policies):
        raise PolicyError(wrong, hint="docs/reference/policy-language.md describes what is refused, and why")


def find_errors(policies: PolicySet) -> list[Problem]:
    """Returns the errors in a set that loads but must not be used."""
    found: list[Problem] = []
    seen: dict[object, Rule] = {}
    for policy in policies.policies:
        for rule in policy.rules:
            found += _hits_the_host(rule)
            found += _lock_out(policy, rule)
            found += _empty(rule)
            scope = (policy.bound, policy.selector, frozenset(rule.events))
            key = (*scope, *map(_frozen, rule.blocks), *(one.scope for one in rule.scoped))
            other = seen.setdefault(key, rule)
            if other is not rule and other.action is not rule.action:
                what = f"has action {rule.action.label}, but rule {_named(other)} has {other.action.label}"
                found.append(_problem(rule, f"{what} for the same events of the same containers"))
    return found


def remarks(policies: PolicySet, twins: Mapping[str, Sequence[Sample]] | None = None) -> Iterator[Note]:
    """Yields remarks on what is allowed but mostly unintended. `twins`: rule id -> its benign twins."""
    for policy in policies.policies:
        for rule in policy.rules:
            for one in matched(rule):
                yield _note(rule, "warning", f"matches ordinary behaviour of containers: {one.what}")
            for one in (twins or {}).get(rule.id, ()):
                if rule_matches(rule, one):
                    yield _note(rule, "warning", f"matches its own benign twin: {one.what}")
            if _K.HOST_MAP in rule.events and rule.action is not Action.ALERT:
                yield _note(rule, "warning", "stops programs of the host: try it with `action: alert` first")
            yield from _rooted_elsewhere(rule)
            yield from _open_exceptions(rule)
            for name in absent_names(rule):
                level = "warning" if name.warns else "note"
                place = rule.place.file, name.condition.line or rule.place.line, name.condition.column
                yield Note(*place, rule.id, level, str(name))
    yield from _overlaps(policies)


def _open_exceptions(rule: Rule) -> Iterator[Note]:
    """Yields warnings for exceptions of a critical rule that any container can use with any program."""
    event = rule.events[0]
    if rule.severity != "critical" or not EVENTS[event].operand("exe"):
        return
    scoped = (one.match for one in rule.scoped if _matches_everything(one.scope))
    for block in (*rule.exceptions, *scoped):
        match = block[event]
        if any(condition.operand in _NARROW for condition in match):
            continue
        place = rule.place.line, rule.place.column
        if match and match[0].line:
            place = match[0].line, match[0].column
        text = "an exception of a critical rule holds in every container: name the program (`exe`) and the"
        yield Note(rule.place.file, *place, rule.id, "warning", f"{text} workload (`for`)")


def _matches_everything(scope: Traits) -> bool:
    """Returns True if every key of a scope has a glob that matches any value, as `namespaces: '*'` does."""
    if scope.labels or scope.privileged is not None or scope.handler is not None:
        return False
    keys = scope.names, scope.images, scope.runtimes, scope.namespaces, scope.pods, scope.workloads
    return all(any(set(glob) == {"*"} for glob in globs) for globs in keys if globs)


def _rooted_elsewhere(rule: Rule) -> Iterator[Note]:
    """Yields warnings for paths as a container sees them, on filesystems that start at their own root."""
    event = rule.events[0]
    for match in (block[event] for block in rule.blocks):
        for condition in match:
            operand = EVENTS[event].operand(condition.operand)
            if operand is None or operand.kind is not Kind.OBJECT:
                continue
            for word in condition.words:
                root = next((root for root in _ROOTS if word.startswith(root)), None)
                if root is not None:
                    text = f"{operand.name}: {word!r} matches no file, as a path starts at its filesystem's"
                    text += f" root: {_ROOTS[root].format(word[len(root) :])}"
                    yield Note(rule.place.file, condition.line, condition.column, rule.id, "warning", text)


def _problem(rule: Rule, message: str) -> Problem:
    return Problem(rule.place.file, rule.place.line, rule.place.column, f"rule {rule.id}", message)


def _note(rule: Rule, level: str, text: str) -> Note:
    return Note(rule.place.file, rule.place.line, rule.place.column, rule.id, level, text)


def _named(rule: Rule) -> str:
    return f"{rule.id} ({rule.place.file}:{rule.place.line})"


def _hits_the_host(rule: Rule) -> Iterator[Problem]:
    """Yields an error if a rule stops usermode helpers that the node knows."""
    kind = _K.KERNEL_HELPER
    if rule.action is Action.ALERT or kind not in rule.events:
        return
    known = EVENTS[kind].operand("known")
    assert known is not None
    unknown_only = [
        any(isinstance(p, Values) and p.dim == known.dim and not p.holds(*known.words["yes"]) for p in one)
        for one in _matches(rule, kind)
    ]
    if not all(unknown_only):
        what = "usermode helpers that the node needs, such as modprobe; add `known: no`"
        yield _problem(rule, f"would disable the node: it would {rule.action.label} {what}")


def _lock_out(policy: Policy, rule: Rule) -> Iterator[Problem]:
    """Yields an error if a rule stops what every container must be able to do.

    A policy for selected containers may do so: their owner decides.
    """
    if rule.action is Action.ALERT or policy.bound or policy.selector.only is not None:
        return
    for one in matched(rule):
        if one.vital:
            yield _problem(
                rule,
                f"would stop every container of the node: it would {rule.action.label} {one.what}; "
                "narrow `match`, or select containers",
            )


def _frozen(block: Mapping[EventKind, Match]) -> object:
    # The meaning of the block, independent of how it is written.
    return tuple(
        (event, frozenset((c.operand, frozenset(c.alternatives)) for c in match))
        for event, match in sorted(block.items())
    )


def _atoms(rule: Rule, event: EventKind) -> list[Atom]:
    try:
        return lower(rule, event)
    except TooMany:
        return []


def _matches(rule: Rule, event: EventKind) -> list[Conjunction]:
    return [atom.matches for atom in _atoms(rule, event)]


def _empty(rule: Rule) -> Iterator[Problem]:
    """Yields an error if an exception holds whenever its rule matches."""
    for event in rule.events:
        atoms = _matches(rule, event)
        plain = [
            by_program(c, trusted=False)  # as written: tests of the program in either state
            for block in rule.exceptions
            for c in _conjunctions(block[event])
        ]
        if plain and atoms and covers(plain, atoms):
            what = f"an exception covers everything it matches on {event.label}: the rule can never match"
            yield _problem(rule, what)
            return


def _conjunctions(match: Match) -> list[Conjunction]:
    found: list[Conjunction] = [()]
    for condition in match:
        found = [(*left, *right) for left in found for right in condition.alternatives][:256]
    return found


def _overlaps(policies: PolicySet) -> Iterator[Note]:
    """Yields notes on rules with different actions that can match the same event: the stronger decides."""
    by_event: dict[EventKind, list[tuple[Policy, Rule]]] = defaultdict(list)
    for policy in policies.policies:
        for rule in policy.rules:
            for event in rule.events:
                by_event[event].append((policy, rule))
    reported: set[tuple[str, str]] = set()
    for event, rules in by_event.items():
        if len(rules) ** 2 > _MOST_PAIRS:
            continue
        atoms = {rule.id: _atoms(rule, event) for _, rule in rules}
        for weak, strong in _contrasts(rules):
            if (weak.id, strong.id) not in reported and (note := _overlap(event, weak, strong, atoms)):
                reported.add((weak.id, strong.id))
                yield note


def _contrasts(rules: Iterable[tuple[Policy, Rule]]) -> Iterator[tuple[Rule, Rule]]:
    """Yields pairs of rules for the same containers with different actions, the weaker first."""
    for (one, first), (other, second) in combinations(rules, 2):
        everyone = one.selector.only is None or other.selector.only is None
        if first.action is not second.action and (everyone or one.selector == other.selector):
            yield (first, second) if first.action < second.action else (second, first)


def _overlap(event: EventKind, weak: Rule, strong: Rule, atoms: Mapping[str, Sequence[Atom]]) -> Note | None:
    less, more = ([atom.matches for atom in atoms[rule.id]] for rule in (weak, strong))
    if covers(less, more):
        return None  # a general rule, and a special one with a stronger action
    if covers(more, less) and not strong.exceptions:
        text = f"has no effect on {event.label}: rule {_named(strong)} matches all of its events, with action"
        return _note(weak, "warning", f"{text} {strong.action.label}")
    if any(_both(event, atom, other) for atom in atoms[weak.id] for other in more):
        text = f"has action {weak.action.label}; where rule {_named(strong)} also matches, "
        return _note(weak, "note", f"{text}{strong.action.label} wins")
    return None


def _both(event: EventKind, atom: Atom, other: Conjunction) -> bool:
    excepted = any(implies(other, exception) for exception in atom.exceptions)
    return not excepted and may_overlap(event, atom.matches, other)
