# SPDX-License-Identifier: Apache-2.0
"""Assigns the bits of a generation. A rule's atom and its exceptions share a 64-bit word.

The kernel only examines words in which something may match, so rules on one event are placed together. So
are rules on events that another rule has in common: of two rules that alert, the lower bit is reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from ringfence.abi import MAX_RULES, RULE_WORDS, Action, EventKind

__all__ = ["Group", "OutOfBits", "place"]

_WORD = 64


class OutOfBits(Exception):
    """The atoms and exceptions exceed the bits of a generation."""


class Group(NamedTuple):
    """Bits that must share a word: those of a rule's exceptions and, above them, of the rule."""

    events: frozenset[EventKind]
    exceptions: int
    action: Action = Action.ALERT  # stronger actions come first


def place(groups: Sequence[Group]) -> list[int]:
    """Returns the first bit of each group: its exceptions come first, then its rule. Raises OutOfBits."""
    # Stable: file order within an action. In audit mode all rules alert, and the reported one must be the
    # one that would have won, on each event of a rule.
    linked = _linked(groups)
    runs = [linked[min(group.events)] for group in groups]
    order = sorted(range(len(groups)), key=lambda index: (runs[index], -groups[index].action))
    for keep_together in (True, False):
        starts = _fill(groups, runs, order, keep_together=keep_together)
        if starts is not None:
            return starts
    needed = sum(group.exceptions + 1 for group in groups)
    raise OutOfBits(
        f"the rules and exceptions of this set need {needed} bits; there are {MAX_RULES} "
        f"({RULE_WORDS} words of 64, no rule across two): "
        "use lists in place of similar rules, or load fewer policies on this node"
    )


def _linked(groups: Sequence[Group]) -> Mapping[EventKind, EventKind]:
    """Event -> the lowest of all events that rules link it to, directly or transitively."""
    lowest = {event: event for group in groups for event in group.events}
    for events in {group.events for group in groups if len(group.events) > 1}:
        old = {lowest[event] for event in events}
        lowest.update({event: min(old) for event, one in lowest.items() if one in old})
    return lowest


def _fill(
    groups: Sequence[Group], runs: Sequence[EventKind], order: Sequence[int], *, keep_together: bool
) -> list[int] | None:
    starts = [0] * len(groups)
    next_bit = 0
    for _, run in groupby(order, key=lambda index: runs[index]):
        members = list(run)
        size = sum(groups[index].exceptions + 1 for index in members)
        if keep_together and size <= _WORD and next_bit % _WORD + size > _WORD:
            next_bit += -next_bit % _WORD
        for index in members:
            needed = groups[index].exceptions + 1
            if next_bit % _WORD + needed > _WORD:
                next_bit += -next_bit % _WORD
            starts[index] = next_bit
            next_bit += needed
    return starts if next_bit <= MAX_RULES else None
