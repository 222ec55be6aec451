# SPDX-License-Identifier: Apache-2.0
"""Lowers rules to atoms: conjunctions of predicates on one event, each of which takes one bit in the kernel.

A rule's alternatives are multiplied out, and each product is an atom; the same is done with its exceptions.
An exception that cannot overlap with an atom (another device, another filesystem) is dropped for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import NamedTuple

from ringfence.abi import DIM_EXE, DIM_OBJECT, EXE_CHANGED, EventKind
from ringfence.policy.model import Match, Rule, Traits
from ringfence.policy.operand import Bits, Conjunction, Predicate, Values

__all__ = ["MAX_ATOMS", "MAX_EXCEPTIONS", "Atom", "TooMany", "by_program", "lower"]

#: per rule and event
MAX_ATOMS = 64
#: they share a 64-bit word with their rule
MAX_EXCEPTIONS = 63


class TooMany(Exception):
    """A rule has too many alternatives. The message names the part, and what to do."""


class Atom(NamedTuple):
    """The part of a rule that takes one bit, and the exceptions that clear the bit."""

    matches: Conjunction
    exceptions: tuple[Conjunction, ...]
    scoped: tuple[tuple[Traits, tuple[Conjunction, ...]], ...] = ()  # those for some containers only

    @property
    def scopes(self) -> Mapping[Traits | None, tuple[Conjunction, ...]]:
        """All its exceptions by the containers that they are for; None: all containers."""
        return {None: self.exceptions, **dict(self.scoped)}

    @property
    def most(self) -> int:
        """The number of all its exceptions."""
        return sum(map(len, self.scopes.values()))


def lower(rule: Rule, event: EventKind) -> list[Atom]:
    """Returns the atoms of a rule for one of its events. Raises TooMany."""
    matches = [by_program(c, trusted=False) for c in _conjunctions(rule.match[event])]
    if len(matches) > MAX_ATOMS:
        raise TooMany(
            f"expands to {len(matches)} combinations, at most {MAX_ATOMS} are supported: split the rule"
        )
    everywhere = [one for block in rule.exceptions for one in _excepted(block[event])]
    scoped: dict[Traits, list[Conjunction]] = {}
    for one in rule.scoped:
        scoped.setdefault(one.scope, []).extend(_excepted(one.match[event]))
    atoms = [
        Atom(
            match,
            _relevant(match, everywhere),
            tuple((scope, some) for scope, each in scoped.items() if (some := _relevant(match, each))),
        )
        for match in matches
    ]
    most = max((atom.most for atom in atoms), default=0)
    if most > MAX_EXCEPTIONS:
        raise TooMany(
            f"has {most} exceptions once lists are expanded, at most {MAX_EXCEPTIONS} are supported: "
            "join them into longer lists of one operand, or split the rule"
        )
    return atoms


def _excepted(match: Match) -> list[Conjunction]:
    return [by_program(one, trusted=True) for one in _conjunctions(match)]


def _relevant(match: Conjunction, exceptions: Iterable[Conjunction]) -> tuple[Conjunction, ...]:
    return tuple(_narrowed(match, one) for one in exceptions if _may_overlap(match, one))


def _conjunctions(match: Match) -> list[Conjunction]:
    alternatives = [condition.alternatives for condition in match]
    total = 1
    for some in alternatives:
        total *= len(some)
    if total > 4096:
        raise TooMany(f"expands to {total} combinations: use fewer kinds of values in one rule")
    combined = (
        tuple(p for part in choice for p in part if not _always(p)) for choice in product(*alternatives)
    )
    return list(dict.fromkeys(combined))


def by_program(conjunction: Conjunction, *, trusted: bool) -> Conjunction:
    """Extends tests of a program to its changed state, unless they exempt it.

    A path is only a name: a container that may write to it can replace the program, which overlayfs shows.
    So a rule matches the program at that path in either state, while an exemption (an exception, a `not`)
    only matches the unchanged program of the image.
    """

    def either(predicate: Predicate) -> Predicate:
        if predicate.dim != DIM_EXE or not isinstance(predicate, Values) or predicate.negated != trusted:
            return predicate
        return predicate._replace(values=predicate.values | {v ^ EXE_CHANGED for v in predicate.values})

    return tuple(map(either, conjunction))


def _narrowed(match: Conjunction, exception: Conjunction) -> Conjunction:
    """Restricts an exception to where its rule matches: same effect, but both fail at the same dim."""
    tested = {p.dim for p in exception}
    return exception + tuple(p for p in match if p.dim != DIM_OBJECT or DIM_OBJECT not in tested)


def _always(predicate: Predicate) -> bool:
    return isinstance(predicate, (Values, Bits)) and predicate.mask == 0 and predicate.holds(0)


def _may_overlap(one: Conjunction, other: Conjunction) -> bool:
    """Returns False if lists of values show that no event satisfies both.

    Cheaper and less exact than `overlap.may_overlap`: an exception that is kept needlessly costs only a bit.
    """
    pairs = ((a, b) for a in one for b in other if isinstance(a, Values) and isinstance(b, Values))
    return not any(a.excludes(b) for a, b in pairs)
