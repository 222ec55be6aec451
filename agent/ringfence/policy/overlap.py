# SPDX-License-Identifier: Apache-2.0
"""Decides whether one rule matches whenever another does, or whether both may match the same event.

Both answers use the predicates alone and are one-sided: `implies` returns True only if it is certain, and
`may_overlap` returns False only if it is certain.
"""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.abi import EventKind
from ringfence.policy.operand import Bits, Conjunction, Network, Networks, Predicate, Texts, Values

__all__ = ["covers", "implies", "may_overlap"]

#: operands of device.access
_NUMBER, _MAJOR = 2, 3


def covers(wide: Sequence[Conjunction], narrow: Sequence[Conjunction]) -> bool:
    """Returns True if every event of the alternatives `narrow` satisfies one of `wide`."""
    return all(any(implies(one, other) for other in wide) for one in narrow)


def implies(match: Conjunction, other: Conjunction) -> bool:
    """Returns True if predicates of the same kind show that every event of `match` satisfies `other`."""
    return all(any(_within(one, wanted) for one in match) for wanted in other)


def may_overlap(event: EventKind, one: Conjunction, other: Conjunction) -> bool:
    """Returns False if predicates of the same kind show that no event satisfies both."""
    if event is EventKind.DEVICE_ACCESS:
        one, other = _with_majors(one), _with_majors(other)
    return not any(_apart(a, b) or _apart(b, a) for a in one for b in other if a.dim == b.dim)


def _with_majors(conjunction: Conjunction) -> Conjunction:
    """Adds the majors of device numbers, which are a separate operand."""
    majors = (
        p._replace(dim=_MAJOR, values=frozenset(value >> 20 for value in p.values))
        for p in conjunction
        if isinstance(p, Values) and p.dim == _NUMBER and not p.negated and not p.drivers
    )
    return (*conjunction, *majors)


def _within(one: Predicate, wanted: Predicate) -> bool:
    if one == wanted:
        return True
    if isinstance(one, Values) and isinstance(wanted, Values):
        return _values_within(one, wanted)
    if isinstance(one, Bits) and isinstance(wanted, Bits) and one.dim == wanted.dim:
        some = not wanted.any or bool(one.all & wanted.any) or (bool(one.any) and not one.any & ~wanted.any)
        return some and not wanted.all & ~one.all and not wanted.none & ~one.none
    if isinstance(one, Texts) and isinstance(wanted, Texts) and not (one.negated or wanted.negated):
        begins = all(any(p.startswith(q) for q in wanted.prefixes) for p in one.prefixes)
        return begins and all(wanted.holds(text) for text in one.exact)
    if isinstance(one, Networks) and isinstance(wanted, Networks) and not (one.negated or wanted.negated):
        inside = all(any(_inside(n, m) for m in wanted.networks) for n in one.networks)
        return inside and (wanted.node or not one.node)
    return False


def _values_within(one: Values, wanted: Values) -> bool:
    if (one.dim, one.mask) != (wanted.dim, wanted.mask):
        return False
    if wanted.negated:
        return wanted.values <= one.values if one.negated else one.values.isdisjoint(wanted.values)
    return not one.negated and one.values <= wanted.values and one.drivers <= wanted.drivers


def _apart(a: Predicate, b: Predicate) -> bool:
    """Returns True if no event satisfies both."""
    if isinstance(a, Values) and isinstance(b, Values):
        return a.excludes(b)
    if isinstance(a, Bits) and isinstance(b, Bits):
        return bool(a.all & b.none) or (bool(a.any) and not a.any & ~b.none)
    if isinstance(a, Texts) and isinstance(b, Texts) and not (a.negated or b.negated):
        exact = any(map(b.holds, a.exact)) or any(map(a.holds, b.exact))
        return not exact and not _prefixes_overlap(a, b)
    if isinstance(a, Networks) and isinstance(b, Networks) and not (a.negated or b.negated):
        pairs = ((n, m) for n in a.networks for m in b.networks)
        return not (a.node or b.node) and not any(_inside(n, m) or _inside(m, n) for n, m in pairs)
    return False


def _prefixes_overlap(a: Texts, b: Texts) -> bool:
    return any(p.startswith(q) or q.startswith(p) for p in a.prefixes for q in b.prefixes)


def _inside(small: Network, large: Network) -> bool:
    return small.prefix >= large.prefix and large.contains(small.family, small.address)
