# SPDX-License-Identifier: Apache-2.0
"""probes/match.bpf.c in Python, on the bytes that the maps would contain. For tests only."""

from __future__ import annotations

from typing import NamedTuple

from ringfence.abi import (
    ACTIONS,
    ADDRESS_KEY,
    DIM_ADDRESS,
    DIM_EXE,
    DIM_FACTS,
    DIM_OBJECT,
    DIM_TEXT,
    DIM_USED,
    DIMS,
    EVENT_RULES,
    MATCH_TEXT,
    OPERAND_KEY,
    OPERANDS,
    RULE_WORDS,
    RULESET,
    TEXT_KEY,
    Action,
    EventKind,
)
from ringfence.policy import CompiledPolicies, encode


class Asked(NamedTuple):
    """One event as the probes evaluate it."""

    kind: EventKind
    operands: tuple[int, int, int, int] = (0, 0, 0, 0)
    facts: int = 0
    exe: int = 0
    text: bytes = b""
    address: tuple[int, bytes] | None = None  # family 4 or 6

    def value(self, dim: int) -> int:
        """Returns the number in a dim."""
        return (
            {DIM_FACTS: self.facts, DIM_EXE: self.exe}.get(dim, 0) if dim >= OPERANDS else self.operands[dim]
        )


def _set(number: int, compiled: CompiledPolicies) -> tuple[int, ...]:
    values = RULESET.unpack(encode.ruleset(compiled.sets[number]))
    summary, words = values[0], values[1:]
    assert summary == sum(1 << n for n in range(RULE_WORDS) if words[n])
    return tuple(words)


def _longest(table: dict[bytes, bytes], key: bytes) -> bytes | None:
    """Looks up a key as a longest-prefix trie does: keys start with a u32, the number of bits."""
    best, answer = -1, None
    wanted = int.from_bytes(key[4:], "big")
    size = len(key[4:]) * 8
    for held, value in table.items():
        bits = int.from_bytes(held[:4], "little")
        if bits > best and int.from_bytes(held[4:], "big") >> (size - bits) == wanted >> (size - bits):
            best, answer = bits, value
    return answer


class Twin:
    """One generation, which evaluates events."""

    def __init__(self, compiled: CompiledPolicies) -> None:
        self._compiled = compiled
        self._events = encode.events(compiled)
        self._operands = encode.operands(compiled)
        self._texts = encode.texts(compiled)
        self._addresses = encode.addresses(compiled)
        values = ACTIONS.unpack(encode.actions(compiled))
        self._deny, self._kill = values[:RULE_WORDS], values[RULE_WORDS : 2 * RULE_WORDS]
        self._except, self._clears = values[2 * RULE_WORDS : 3 * RULE_WORDS], values[-1]

    def _look_up(self, asked: Asked, dim: int, how: int, mask: int) -> bytes | None:
        if how == DIM_USED:
            return self._operands.get(OPERAND_KEY.pack(asked.kind, dim, 0, asked.value(dim) & mask))
        if how == DIM_TEXT:
            text = asked.text[: MATCH_TEXT - 1]
            return _longest(self._texts, TEXT_KEY.pack(32 + 8 * MATCH_TEXT, asked.kind, DIM_OBJECT, text))
        assert how == DIM_ADDRESS
        if asked.address is None:
            return None
        family, address = asked.address
        return _longest(
            self._addresses,
            ADDRESS_KEY.pack(32 + 128, asked.kind, DIM_OBJECT, family, address.ljust(16, b"\0")),
        )

    def verdict(self, asked: Asked, active: int) -> tuple[Action, int | None]:
        """Returns action and rule as match.h does, for a container with the active rules `active`."""
        table = self._events.get(encode.index(asked.kind))
        if table is None:
            return Action.NONE, None
        rules, dims, *rest = EVENT_RULES.unpack(table)
        others, masks = rest[:DIMS], rest[DIMS:]
        of_active = RULESET.unpack(encode.ruleset(active))[1:]
        words = [a & b for a, b in zip(_set(rules, self._compiled), of_active, strict=True)]
        for dim in range(DIMS):
            if dims[dim]:
                found = self._look_up(asked, dim, dims[dim], masks[dim])
                number = int.from_bytes(found, "little") if found is not None else others[dim]
                words = [a & b for a, b in zip(words, _set(number, self._compiled), strict=True)]
        best, rule = Action.NONE, None
        for word, hits in enumerate(words):
            for bit in range(64):
                if hits & self._except[word] & 1 << bit:
                    hits &= ~(1 << self._clears[word * 64 + bit])
            hits &= ~self._except[word]
            action, chosen = self._strongest(word, hits)
            if chosen and action > best:
                best, rule = action, word * 64 + (chosen & -chosen).bit_length() - 1
        return best, rule

    def _strongest(self, word: int, hits: int) -> tuple[Action, int]:
        if denied := hits & self._deny[word]:
            return Action.DENY, denied
        if killed := hits & self._kill[word]:
            return Action.KILL, killed
        return Action.ALERT, hits
