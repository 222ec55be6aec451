# SPDX-License-Identifier: Apache-2.0
"""Encodes the tables of CompiledPolicies as in rules.h. Pure; all supported targets are little-endian."""

from __future__ import annotations

from ringfence.abi import (
    ACTIONS,
    ADDRESS_KEY,
    EVENT_RULES,
    KEY_HALF,
    MAX_RULES,
    OPERAND_KEY,
    RULE_WORDS,
    TEXT_KEY,
)
from ringfence.abi import DIM_OBJECT as _OBJECT
from ringfence.policy.compiled import CompiledPolicies

__all__ = [
    "EVENT_BYTES",
    "actions",
    "addresses",
    "events",
    "half_of",
    "index",
    "operands",
    "ruleset",
    "texts",
    "u32",
]

_BYTES = RULE_WORDS * 8
EVENT_BYTES = EVENT_RULES.size
_KEY_HEAD = 32  # bits of a trie's key that are always compared: event, dim, and family or padding


def u32(number: int) -> bytes:
    """Encodes the id of a set."""
    return number.to_bytes(4, "little")


def index(number: int, half: int = 0) -> bytes:
    """Encodes the index of an entry in a table that has one of each number in both halves."""
    return u32(number << 1 | half)


def half_of(table: str, key: bytes) -> int:
    """Returns the half of a table to which a key belongs."""
    if table == "rule_operands":
        return int(OPERAND_KEY.unpack(key)[2])
    layout = TEXT_KEY if table == "rule_texts" else ADDRESS_KEY
    return int(bool(layout.unpack(key)[2] & KEY_HALF))


def _object(half: int) -> int:
    """The `dim` of a trie's key."""
    return _OBJECT | (KEY_HALF if half else 0)


def ruleset(bits: int) -> bytes:
    """struct rf_ruleset."""
    words = bits.to_bytes(_BYTES, "little")
    summary = sum(1 << n for n in range(RULE_WORDS) if bits >> (64 * n) & (1 << 64) - 1)
    return summary.to_bytes(8, "little") + words


def _words(bits: int) -> tuple[int, ...]:
    return tuple(bits >> (64 * n) & (1 << 64) - 1 for n in range(RULE_WORDS))


def events(compiled: CompiledPolicies, half: int = 0) -> dict[bytes, bytes]:
    """Index -> struct rf_event_rules."""
    return {
        index(event, half): EVENT_RULES.pack(table.rules, table.dims, *table.other, *table.masks)
        for event, table in compiled.events.items()
    }


def operands(compiled: CompiledPolicies, half: int = 0) -> dict[bytes, bytes]:
    """struct rf_operand_key -> id of a set."""
    return {
        OPERAND_KEY.pack(event, dim, half, value): u32(number)
        for (event, dim, value), number in compiled.operands.items()
    }


def texts(compiled: CompiledPolicies, half: int = 0) -> dict[bytes, bytes]:
    """struct rf_text_key -> id of a set. A whole string is stored with its terminating NUL."""
    found = {}
    for (event, text, whole), number in compiled.texts.items():
        stored = text + b"\0" if whole else text
        found[TEXT_KEY.pack(_KEY_HEAD + 8 * len(stored), event, _object(half), stored)] = u32(number)
    return found


def addresses(compiled: CompiledPolicies, half: int = 0) -> dict[bytes, bytes]:
    """struct rf_address_key -> id of a set."""
    return {
        ADDRESS_KEY.pack(_KEY_HEAD + prefix, event, _object(half), family, address): u32(number)
        for (event, family, address, prefix), number in compiled.addresses.items()
    }


def actions(compiled: CompiledPolicies) -> bytes:
    """struct rf_actions."""
    found = compiled.actions
    clears = bytearray(MAX_RULES)
    for exception, bit in found.clears.items():
        clears[exception] = bit
    return ACTIONS.pack(*_words(found.deny), *_words(found.kill), *_words(found.exceptions), bytes(clears))
