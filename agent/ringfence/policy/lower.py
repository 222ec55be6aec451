# SPDX-License-Identifier: Apache-2.0
"""Rules -> atoms: conjunctions of predicates on one event, each of which takes one bit in the kernel.

A rule's alternatives are multiplied out, each product is an atom. The same is done with its exceptions; those
that cannot meet the rule's atom (another device, another filesystem) are dropped.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

from ringfence.abi import DIM_EXE, DIM_OBJECT, EXE_CHANGED, EventKind
from ringfence.policy.model import Match, Rule
from ringfence.policy.operand import Bits, Conjunction, Predicate, Values

__all__ = ["MAX_ATOMS", "MAX_EXCEPTIONS", "Atom", "TooMany", "by_program", "lower"]

#: of one rule, for one event
MAX_ATOMS = 64
#: they share a 64-bit word with their rule
MAX_EXCEPTIONS = 63


class TooMany(Exception):
    """A rule has more alternatives than fit. The message says which part, and what to do."""


class Atom(NamedTuple):
    """One bit's worth of a rule, and the exceptions that clear it."""

    matches: Conjunction
    exceptions: tuple[Conjunction, ...]


def lower(rule: Rule, event: EventKind) -> list[Atom]:
    """What the rule asks of one of its events. Raises TooMany."""
    matches = [by_program(c, trusted=False) for c in _conjunctions(rule.match[event])]
    if len(matches) > MAX_ATOMS:
        raise TooMany(
            f"comes apart into {len(matches)} combinations, at most {MAX_ATOMS} fit: split the rule"
        )
    blocks = (c for block in rule.exceptions for c in _conjunctions(block[event]))
    exceptions = [by_program(c, trusted=True) for c in blocks]
    atoms = []
    for match in matches:
        meeting = (e for e in exceptions if _may_overlap(match, e))
        atoms.append(Atom(match, tuple(_narrowed(match, e) for e in meeting)))
    most = max((len(atom.exceptions) for atom in atoms), default=0)
    if most > MAX_EXCEPTIONS:
        raise TooMany(
            f"has {most} exceptions once lists are multiplied out, at most {MAX_EXCEPTIONS} fit: "
            "join them into longer lists of one operand, or split the rule"
        )
    return atoms


def _conjunctions(match: Match) -> list[Conjunction]:
    alternatives = [condition.alternatives for condition in match]
    total = 1
    for some in alternatives:
        total *= len(some)
    if total > 4096:
        raise TooMany(f"comes apart into {total} combinations: use fewer kinds of values in one rule")
    combined = (
        tuple(p for part in choice for p in part if not _always(p)) for choice in product(*alternatives)
    )
    return list(dict.fromkeys(combined))


def by_program(conjunction: Conjunction, *, trusted: bool) -> Conjunction:
    """A path is only a name: a container that may write there can put another program in its place, which
    overlayfs shows.

    So a rule matches a program of that path in either state; what lets a program pass (an exception, a `not`)
    only matches while it is as the image has it.
    """

    def either(predicate: Predicate) -> Predicate:
        if predicate.dim != DIM_EXE or not isinstance(predicate, Values) or predicate.negated != trusted:
            return predicate
        return predicate._replace(values=predicate.values | {v ^ EXE_CHANGED for v in predicate.values})

    return tuple(map(either, conjunction))


def _narrowed(match: Conjunction, exception: Conjunction) -> Conjunction:
    """The exception, restricted to where its rule matches: the same effect, and both drop out at the same
    dim.
    """
    tested = {p.dim for p in exception}
    return exception + tuple(p for p in match if p.dim != DIM_OBJECT or DIM_OBJECT not in tested)


def _always(predicate: Predicate) -> bool:
    return isinstance(predicate, (Values, Bits)) and predicate.mask == 0 and predicate.holds(0)


def _may_overlap(one: Conjunction, other: Conjunction) -> bool:
    """Whether some event could satisfy both, as far as lists of values tell."""
    for a in one:
        for b in other:
            if not (isinstance(a, Values) and isinstance(b, Values)):
                continue
            if (a.dim, a.mask) == (b.dim, b.mask) and _disjoint(a, b):
                return False
    return True


def _disjoint(a: Values, b: Values) -> bool:
    if a.negated and b.negated:
        return False
    if a.negated:
        return b.values <= a.values
    if b.negated:
        return a.values <= b.values
    return a.values.isdisjoint(b.values)
