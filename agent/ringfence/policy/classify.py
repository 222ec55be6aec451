# SPDX-License-Identifier: Apache-2.0
"""One dim of one event -> a table from operand to the set of atoms that it passes. Sets are ints.

This is packet classification by bitmaps: each dim is looked up once, and the AND of the sets found is what
matches. A table is exact: `other` is the set for every operand that is in no entry.
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

#: bits of one dim whose every combination is written out
ENUMERATED_BITS = 14

Number = Values | Bits


class TooManyBits(Exception):
    """The rules on one dim look at more different bits than can be written out."""


class NumberTable(NamedTuple):
    """`operand & mask` -> set."""

    mask: int
    other: int
    entries: Mapping[int, int]


class TextTable(NamedTuple):
    """(text, whether it is the whole string) -> set; the longest entry that fits counts."""

    other: int
    entries: Mapping[tuple[bytes, bool], int]


class AddressTable(NamedTuple):
    """Range -> set; the longest that fits counts."""

    other: int
    entries: Mapping[Network, int]


def numbers(tests: Mapping[int, Sequence[Number]], untested: int) -> NumberTable:
    """`tests`: bit number -> all of its predicates on this dim. `untested`: the set of atoms without any."""
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
        f"the rules on it look at {mask.bit_count()} different bits, at most {ENUMERATED_BITS} fit: "
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
    """Lists of values: those that occur are entries, all the rest pass what is negated."""
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
    """(True, values that fail) or (False, values that pass) of predicates that must all hold."""
    fail = frozenset().union(*(p.values for p in predicates if p.negated))
    positive = [p.values for p in predicates if not p.negated]
    if not positive:
        return True, fail
    return False, frozenset.intersection(*positive) - fail


def texts(tests: Mapping[int, Texts], untested: int) -> TextTable:
    """Each entry holds what its own beginnings hold, because the kernel answers with the longest only."""
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
    """As texts: a range holds what the wider ranges around it hold."""
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
    """The atoms that name one text or range: those that pass there, and those that (negated) fail."""

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
