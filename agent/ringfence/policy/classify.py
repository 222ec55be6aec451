# SPDX-License-Identifier: Apache-2.0
"""Builds, for one dim of one event, a table from operand to the set of atoms that it satisfies.

This is packet classification by bitmaps: each dim is looked up once, and the AND of the sets found gives
the matches. Sets are ints. A table is exact: `other` is the set for every operand without an entry.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ringfence.policy.operand import Bits, Network, Networks, Texts, Values

__all__ = [
    "ENUMERATED_BITS",
    "AddressTable",
    "NumberTable",
    "TextTable",
    "TooManyBits",
    "addresses",
    "numbers",
    "texts",
]

#: the maximum number of bits of one dim for which all combinations are enumerated
ENUMERATED_BITS = 14

Number = Values | Bits


class TooManyBits(Exception):
    """The rules on one dim test more different bits than can be enumerated."""


class NumberTable(NamedTuple):
    """`operand & mask` -> set."""

    mask: int
    other: int
    entries: Mapping[int, int]


class TextTable(NamedTuple):
    """(text, whether it is the whole string) -> set; the longest matching entry decides."""

    other: int
    entries: Mapping[tuple[bytes, bool], int]


class AddressTable(NamedTuple):
    """Range -> set; the longest matching range decides."""

    other: int
    entries: Mapping[Network, int]


def numbers(tests: Mapping[int, Sequence[Number]], untested: int) -> NumberTable:
    """Builds a table of numbers.

    `tests`: bit number -> its predicates on this dim. `untested`: the set of atoms without predicates.
    """
    shapes: dict[tuple[Number, ...], int] = defaultdict(int)
    for bit, predicates in tests.items():
        shapes[tuple(predicates)] |= 1 << bit
    mask = 0
    for predicates in shapes:
        for predicate in predicates:
            mask |= predicate.mask
    if mask.bit_count() <= ENUMERATED_BITS:
        return _enumerated(shapes, mask, untested)
    if all(isinstance(p, Values) and p.mask == mask for predicates in shapes for p in predicates):
        return _listed(shapes, mask, untested)
    raise TooManyBits(
        f"the rules test {mask.bit_count()} different bits, at most {ENUMERATED_BITS} are supported: "
        "use fewer different flags (and none as numbers) in the rules on this event"
    )


def _enumerated(shapes: Mapping[tuple[Number, ...], int], mask: int, untested: int) -> NumberTable:
    found: dict[int, int] = {}
    for value in _combinations(mask):
        bits = untested
        for predicates, some in shapes.items():
            if all(p.holds(value) for p in predicates):
                bits |= some
        found[value] = bits
    other = Counter(found.values()).most_common(1)[0][0]
    return NumberTable(mask, other, {value: bits for value, bits in found.items() if bits != other})


def _combinations(mask: int) -> Iterable[int]:
    value = mask
    while True:
        yield value
        if not value:
            return
        value = (value - 1) & mask


def _listed(shapes: Mapping[tuple[Number, ...], int], mask: int, untested: int) -> NumberTable:
    """Builds a table of lists of values: listed values have entries, all others satisfy negated lists."""
    passes: dict[int, int] = defaultdict(int)
    fails: dict[int, int] = defaultdict(int)
    other = untested
    for predicates, bits in shapes.items():
        negated, values = _intersection([p for p in predicates if isinstance(p, Values)])
        if negated:
            other |= bits
        for value in values:
            (fails if negated else passes)[value] |= bits
    entries = {v: (other & ~fails.get(v, 0)) | passes.get(v, 0) for v in (*passes, *fails)}
    return NumberTable(mask, other, {value: bits for value, bits in entries.items() if bits != other})


def _intersection(predicates: Sequence[Values]) -> tuple[bool, frozenset[int]]:
    """Intersects predicates that must all hold: (True, values that fail) or (False, values that pass)."""
    fail = frozenset().union(*(p.values for p in predicates if p.negated))
    positive = [p.values for p in predicates if not p.negated]
    if not positive:
        return True, fail
    return False, frozenset.intersection(*positive) - fail


def texts(tests: Mapping[int, Texts], untested: int) -> TextTable:
    """Builds a table of texts. An entry includes the sets of its prefixes: the kernel returns the longest."""
    exact: dict[bytes, _Marks] = defaultdict(_Marks)
    prefixes: dict[bytes, _Marks] = defaultdict(_Marks)
    other = untested
    for bit, test in tests.items():
        other |= 1 << bit if test.negated else 0
        for text in test.exact:
            exact[text].add(bit, negated=test.negated)
        for text in test.prefixes:
            prefixes[text].add(bit, negated=test.negated)
    entries: dict[tuple[bytes, bool], int] = {}
    for whole, nodes in ((True, exact), (False, prefixes)):
        for text, own in nodes.items():
            marks = [own] + [prefixes[text[:n]] for n in range(len(text) + 1) if text[:n] in prefixes]
            entries[text, whole] = _apply(marks, other)
    return TextTable(other, entries)


def addresses(tests: Mapping[int, Networks], untested: int) -> AddressTable:
    """Builds a table of ranges. A range includes the sets of the wider ranges that contain it."""
    nodes: dict[tuple[int, int, int], _Marks] = defaultdict(_Marks)
    ranges: set[Network] = set()
    other = untested
    for bit, test in tests.items():
        other |= 1 << bit if test.negated else 0
        for network in test.networks:
            ranges.add(network)
            nodes[_node(network, network.prefix)].add(bit, negated=test.negated)
    entries: dict[Network, int] = {}
    for network in ranges:
        around = (_node(network, prefix) for prefix in range(network.prefix + 1))
        entries[network] = _apply([nodes[node] for node in around if node in nodes], other)
    return AddressTable(other, entries)


def _node(network: Network, prefix: int) -> tuple[int, int, int]:
    shift = len(network.address) * 8 - prefix
    return network.family, prefix, int.from_bytes(network.address, "big") >> shift


class _Marks:
    """The atoms that name one text or range: those that it satisfies, and those (negated) that it fails."""

    __slots__ = ("fails", "passes")

    def __init__(self) -> None:
        self.passes = 0
        self.fails = 0

    def add(self, bit: int, *, negated: bool) -> None:
        if negated:
            self.fails |= 1 << bit
        else:
            self.passes |= 1 << bit


def _apply(marks: Iterable[_Marks], other: int) -> int:
    passes = fails = 0
    for mark in marks:
        passes |= mark.passes
        fails |= mark.fails
    return (other & ~fails) | passes
