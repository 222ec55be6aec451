# SPDX-License-Identifier: Apache-2.0
"""Operands, as a rule's author sees them (a name, words) and as the kernel does (a dim, numbers).

The dims (dimensions) of an event are four numbers (0 to 3), the task's facts (4), its program (5), and a
string or address (6). A predicate tests one dim. A conjunction is a set of predicates that must all hold.
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
    """`operand & mask` is (or, negated, is not) one of `values`.

    `drivers`: names of device drivers (`c driver mei`), of which the node's numbers are added to the values.
    """

    dim: int
    mask: int
    values: frozenset[int]
    negated: bool = False
    drivers: frozenset[str] = frozenset()

    def holds(self, value: int) -> bool:
        """Returns True if an operand of that value satisfies the predicate."""
        return ((value & self.mask) in self.values) != self.negated

    def excludes(self, other: Values) -> bool:
        """Returns True if no operand satisfies both predicates."""
        if (self.dim, self.mask) != (other.dim, other.mask) or (self.negated and other.negated):
            return False
        if self.drivers or other.drivers:
            return False
        if self.negated:
            return other.values <= self.values
        return self.values <= other.values if other.negated else self.values.isdisjoint(other.values)


class Bits(NamedTuple):
    """The operand has at least one bit of `any` (unless 0), every bit of `all`, and no bit of `none`."""

    dim: int
    any: int = 0
    all: int = 0
    none: int = 0

    @property
    def mask(self) -> int:
        """The bits that are tested."""
        return self.any | self.all | self.none

    def holds(self, value: int) -> bool:
        """Returns True if an operand of that value satisfies the predicate."""
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
        """Returns True if an event with that string satisfies the predicate."""
        return (text in self.exact or any(text.startswith(p) for p in self.prefixes)) != self.negated


class Network(NamedTuple):
    """An address range: family 4 or 6, its first address (4 or 16 bytes), and the prefix length."""

    family: int
    address: bytes
    prefix: int

    def contains(self, family: int, address: bytes) -> bool:
        """Returns True if the address is in the range."""
        shift = len(self.address) * 8 - self.prefix
        return family == self.family and (
            int.from_bytes(address, "big") >> shift == int.from_bytes(self.address, "big") >> shift
        )


class Networks(NamedTuple):
    """The event's address lies in one of the ranges (or, negated, in none).

    `node`: the node's own addresses at the time of compilation are added to the ranges.
    """

    networks: frozenset[Network]
    negated: bool = False
    dim: int = DIM_OBJECT
    node: bool = False

    def holds(self, family: int, address: bytes) -> bool:
        """Returns True if an event with that address satisfies the predicate."""
        return any(n.contains(family, address) for n in self.networks) != self.negated


Predicate = Values | Bits | Texts | Networks
Conjunction = tuple[Predicate, ...]


class Kind(Enum):
    """How an operand is written in a policy."""

    CHOICE = "choice"  # one of the words (or a number)
    FLAGS = "flags"  # bits; a list means any of them; {all: [...]}, {none: [...]}
    NUMBER = "number"  # a number or a range, "30000-30100"
    PROGRAM = "program"  # the whole path of a program
    NAME = "name"  # the last component of a path
    OBJECT = "object"  # filesystem:path, see ringfence.policy.paths
    TEXT = "text"  # a string, or a prefix: "vm/*"
    SOCKET = "socket"  # the name of a unix socket: /run/x.sock, @abstract, @begin*
    NETWORK = "network"  # an address or a CIDR range
    DEVICE = "device"  # "c 1:3", "b *:*"


@dataclass(frozen=True, slots=True)
class Operand:
    """A property of an event that a rule can test.

    `words` maps words to values: several numbers if a word stands for several values, one set of bits for
    flags. `mask` selects the operand's bits in the dim. `caution` describes how an observed process could
    evade the test; it is empty if the test uses a kernel object.
    """

    name: str
    kind: Kind
    dim: int
    meaning: str
    words: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    mask: int = FULL
    largest: int = 0  # of a plain number; 0: only words
    caution: str = ""
    by_hook: bool = False  # only known if LSM hooks decide the event
    at_exit: bool = False  # without hooks, known when the call is done, and the process is killed

    def word_of(self, value: int) -> str:
        """Returns the word of a value, or the number if it has no word."""
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
    """An event in the vocabulary of policies. `meaning` completes the sentence "a process ..."."""

    label: str
    meaning: str
    operands: tuple[Operand, ...]
    hot: str = ""  # why a rule on it is not free, if it is not

    def operand(self, name: str) -> Operand | None:
        """Returns the operand of that name, or None."""
        return next((operand for operand in self.operands if operand.name == name), None)


def fnv1a(text: bytes) -> int:
    """Returns the 64-bit FNV-1a hash, which the probes use for names of programs and files."""
    value = 0xCBF29CE484222325
    for byte in text:
        value = (value ^ byte) * 0x100000001B3 & FULL
    return value
