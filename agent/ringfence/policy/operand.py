# SPDX-License-Identifier: Apache-2.0
"""What an operand is to a rule's author (a name, words) and what it is to the kernel (a dim, numbers).

An event has four numbers (dims 0 to 3), the task's facts (4), its program (5), and a string or address (6).
A predicate asks one dim of one event. A conjunction is predicates that must all hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from ringfence.abi import DIM_OBJECT

__all__ = [
    "FULL",
    "Bits",
    "Conjunction",
    "EventWords",
    "Kind",
    "Network",
    "Networks",
    "Operand",
    "Predicate",
    "Texts",
    "Values",
    "fnv1a",
]

#: every bit of an operand
FULL = (1 << 64) - 1


class Values(NamedTuple):
    """`operand & mask` is (or, negated, is not) one of `values`."""

    dim: int
    mask: int
    values: frozenset[int]
    negated: bool = False

    def holds(self, value: int) -> bool:
        """Whether an operand of that value passes."""
        return ((value & self.mask) in self.values) != self.negated


class Bits(NamedTuple):
    """At least one bit of `any` (where it is not 0), every bit of `all`, no bit of `none`."""

    dim: int
    any: int = 0
    all: int = 0
    none: int = 0

    @property
    def mask(self) -> int:
        """The bits that are looked at."""
        return self.any | self.all | self.none

    def holds(self, value: int) -> bool:
        """Whether an operand of that value passes."""
        return (
            (not self.any or bool(value & self.any))
            and value & self.all == self.all
            and not value & self.none
        )


class Texts(NamedTuple):
    """The event's string is (or, negated, is not) one of `exact` or begins with one of `prefixes`."""

    exact: frozenset[bytes]
    prefixes: frozenset[bytes]
    negated: bool = False
    dim: int = DIM_OBJECT

    def holds(self, text: bytes) -> bool:
        """Whether an event with that string passes."""
        return (text in self.exact or any(text.startswith(p) for p in self.prefixes)) != self.negated


class Network(NamedTuple):
    """An address range: family 4 or 6, its first address (4 or 16 bytes), the bits that are fixed."""

    family: int
    address: bytes
    prefix: int

    def contains(self, family: int, address: bytes) -> bool:
        """Whether an address lies in the range."""
        shift = len(self.address) * 8 - self.prefix
        return family == self.family and (
            int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift
        )


class Networks(NamedTuple):
    """The event's address lies in one of the ranges (or, negated, in none).

    `node`: the node's own addresses belong to them, whatever they are when the rule is compiled.
    """

    networks: frozenset[Network]
    negated: bool = False
    dim: int = DIM_OBJECT
    node: bool = False

    def holds(self, family: int, address: bytes) -> bool:
        """Whether an event with that address passes."""
        return any(n.contains(family, address) for n in self.networks) != self.negated


Predicate = Values | Bits | Texts | Networks
Conjunction = tuple[Predicate, ...]


class Kind(Enum):
    """How an operand is written."""

    CHOICE = "choice"  # one of the words (or a number)
    FLAGS = "flags"  # bits; a list means any of them; {all: [...]}, {none: [...]}
    NUMBER = "number"  # a number or a range, "30000-30100"
    PROGRAM = "program"  # the whole path of a program
    NAME = "name"  # the last component of a path
    OBJECT = "object"  # filesystem:path, see ringfence.policy.paths
    TEXT = "text"  # a string, or the beginning of one: "vm/*"
    SOCKET = "socket"  # the name of a unix socket: /run/x.sock, @abstract, @begin*
    NETWORK = "network"  # an address or a CIDR range
    DEVICE = "device"  # "c 1:3", "b *:*"


@dataclass(frozen=True, slots=True)
class Operand:
    """One thing that a rule can ask of an event.

    `words` are the values that have a name: several numbers where a word stands for several values, one set
    of bits for flags. `mask` is where in the dim the operand lies. `caution` says what an observed
    process could do to escape the test; empty when it is made on a kernel object.
    """

    name: str
    kind: Kind
    dim: int
    meaning: str
    words: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    mask: int = FULL
    largest: int = 0  # of a plain number; 0: only words
    caution: str = ""
    by_hook: bool = False  # known where LSM hooks decide the event, and nowhere else

    def word_of(self, value: int) -> str:
        """The value as people read it: a word where there is one."""
        if self.kind is Kind.FLAGS:
            return self._words_of_bits(value)
        found = [word for word, numbers in self.words.items() if value & self.mask in numbers]
        return found[0] if found else str(value & self.mask)

    def _words_of_bits(self, value: int) -> str:
        parts, rest = [], value & self.mask
        for word, (bits,) in self.words.items():
            if rest & bits == bits:
                parts.append(word)
                rest &= ~bits
        if rest:
            parts.append(hex(rest))
        return "|".join(parts) or "0"


@dataclass(frozen=True, slots=True)
class EventWords:
    """An event as policies speak of it. `meaning` completes the sentence "a process ..."."""

    label: str
    meaning: str
    operands: tuple[Operand, ...]
    hot: str = ""  # why a rule on it is not free, if it is not

    def operand(self, name: str) -> Operand | None:
        """The operand of that name."""
        return next((operand for operand in self.operands if operand.name == name), None)


def fnv1a(text: bytes) -> int:
    """FNV-1a, 64 bits: how the probes hash the name of a program or a file."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 & FULL
    return value
