# SPDX-License-Identifier: Apache-2.0
"""Rules for the probe tests, written into the kernel's maps by hand.

The policy compiler is not used: the statements of these tests on matching must not depend on it. A
rule's number is its place in the list; an exception is a rule that `clears` another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ringfence import abi
from ringfence.abi import EventKind
from ringfence.bpf.maps import Map, wait_for_programs
from ringfence.policy.encode import half_of

__all__ = ["Rule", "install", "name_hash"]

TABLES = ("rule_sets", "rule_events", "rule_operands", "rule_texts", "rule_addresses", "rule_actions")
_HEAD = 32  # bits of a key before its text or address


@dataclass(frozen=True)
class Rule:
    """`operands`: dim -> values; `masks`: dim -> bits
    that count; `text`: a prefix, or exact with its NUL.
    """

    event: EventKind
    action: str = "alert"
    operands: dict[int, set[int]] = field(default_factory=dict)
    masks: dict[int, int] = field(default_factory=dict)
    text: bytes | None = None
    address: tuple[int, bytes, int] | None = None  # 4 or 6, address, bits
    clears: int | None = None

    @property
    def dims(self) -> set[int]:
        named = {abi.DIM_OBJECT} if self.text is not None or self.address else set()
        return named | set(self.operands)


def name_hash(name: bytes) -> int:
    """FNV-1a, 64 bits: https://datatracker.ietf.org/doc/html/draft-eastlake-fnv"""
    value = 0xCBF29CE484222325
    for byte in name:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


class _Tables:
    def __init__(self, rules: Sequence[Rule], half: int) -> None:
        self.rules, self.half = rules, half
        self.sets: dict[int, int] = {0: 0}  # bits -> id; the set after it is that of every container
        self.entries: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}

    def index(self, number: int) -> bytes:
        return (number * abi.GENERATIONS + self.half).to_bytes(4, "little")

    @property
    def object_dim(self) -> int:
        return abi.DIM_OBJECT | (abi.KEY_HALF if self.half else 0)

    def set_id(self, numbers: set[int]) -> bytes:
        bits = sum(1 << number for number in numbers)
        return self.sets.setdefault(bits, len(self.sets) + abi.SET_AT_BIRTH).to_bytes(4, "little")

    def event(self, kind: EventKind) -> None:
        mine = {number for number, rule in enumerate(self.rules) if rule.event is kind}
        dims, others, masks = bytearray(8), [0] * abi.DIMS, [0] * abi.DIMS
        for dim in {dim for number in mine for dim in self.rules[number].dims}:
            silent = {number for number in mine if dim not in self.rules[number].dims}
            dims[dim] = abi.DIM_USED
            others[dim] = int.from_bytes(self.set_id(silent), "little")
            if dim == abi.DIM_OBJECT:
                dims[dim] = self.object(kind, mine, silent)
                continue
            mask = next((r.masks[dim] for r in self.rules if r.event is kind and dim in r.masks), 2**64 - 1)
            masks[dim] = mask
            for value in {v for number in mine for v in self.rules[number].operands.get(dim, ())}:
                hit = {number for number in mine if value in self.rules[number].operands.get(dim, ())}
                key = abi.OPERAND_KEY.pack(kind, dim, self.half, value & mask)
                self.entries["rule_operands"][key] = self.set_id(hit | silent)
        row = abi.EVENT_RULES.pack(int.from_bytes(self.set_id(mine), "little"), bytes(dims), *others, *masks)
        self.entries["rule_events"][self.index(kind)] = row

    def object(self, kind: EventKind, mine: set[int], silent: set[int]) -> int:
        texts = {number: rule.text for number in mine if (rule := self.rules[number]).text is not None}
        for text in set(texts.values()):
            hit = {
                number for number, prefix in texts.items() if prefix is not None and text.startswith(prefix)
            }
            key = abi.TEXT_KEY.pack(_HEAD + 8 * len(text), kind, self.object_dim, text)
            self.entries["rule_texts"][key] = self.set_id(hit | silent)
        for number in mine:
            if address := self.rules[number].address:
                family, raw, bits = address
                key = abi.ADDRESS_KEY.pack(_HEAD + bits, kind, self.object_dim, family, raw)
                self.entries["rule_addresses"][key] = self.set_id({number} | silent)
        return abi.DIM_TEXT if texts else abi.DIM_ADDRESS

    def finish(self) -> dict[str, dict[bytes, bytes]]:
        for kind in {rule.event for rule in self.rules}:
            self.event(kind)
        for kind in set(EventKind) - {rule.event for rule in self.rules}:
            self.entries["rule_events"][self.index(kind)] = bytes(abi.EVENT_RULES.size)
        everything = (1 << len(self.rules)) - 1
        self.entries["rule_actions"][self.half.to_bytes(4, "little")] = self.actions()
        for bits, number in [*self.sets.items(), (everything, abi.SET_AT_BIRTH)]:
            words = [bits >> 64 * word & (2**64 - 1) for word in range(abi.RULE_WORDS)]
            summary = sum(1 << index for index, word in enumerate(words) if word)
            self.entries["rule_sets"][self.index(number)] = abi.RULESET.pack(summary, *words)
        return self.entries

    def actions(self) -> bytes:
        masks = {name: [0] * abi.RULE_WORDS for name in ("deny", "kill", "except")}
        clears = bytearray(abi.MAX_RULES)
        for number, rule in enumerate(self.rules):
            if rule.clears is not None:
                clears[number] = rule.clears % 64
            kind = "except" if rule.clears is not None else rule.action
            if kind in masks:
                masks[kind][number // 64] |= 1 << number % 64
        return abi.ACTIONS.pack(*masks["deny"], *masks["kill"], *masks["except"], bytes(clears))


def install(map_of: Callable[[str], Map], rules: Sequence[Rule]) -> int:
    """Put rules in force for every container. Returns the
    generation's number. Needs profile 0 in every slot.
    """
    number = map_of("generation").get_int(0) + 1
    half = number % abi.GENERATIONS
    for name in ("rule_operands", "rule_texts", "rule_addresses"):
        map_of(name).delete_batch([key for key in list(map_of(name).keys()) if half_of(name, key) == half])
    for name, entries in _Tables(rules, half).finish().items():
        map_of(name).update_batch(entries)
    map_of("generation").set(0, number)
    wait_for_programs()
    return number
