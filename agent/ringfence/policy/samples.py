# SPDX-License-Identifier: Apache-2.0
"""Sample events in the vocabulary of policies, to match rules against without a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.abi import DIM_EXE, DIM_FACTS, EventKind
from ringfence.policy.lower import TooMany, lower
from ringfence.policy.model import Rule
from ringfence.policy.operand import Conjunction, Networks, Predicate, Texts, fnv1a
from ringfence.policy.shared_operands import TASK_WORDS
from ringfence.policy.vocabulary import EVENTS

__all__ = ["Sample", "device_sample", "file_sample", "rule_matches", "sample"]

_ELSEWHERE = bytes((10, 0, 0, 7))  # an address in no list
_PROGRAM = fnv1a(b"/usr/bin/program")


@dataclass(frozen=True)
class Sample:
    """One event: its numbers by dim, its string or address. `vital`: programs cannot run without it."""

    kind: EventKind
    what: str
    numbers: Mapping[int, int] = field(default_factory=dict)
    text: bytes = b""
    address: bytes = _ELSEWHERE
    vital: bool = False

    def satisfies(self, conjunction: Conjunction) -> bool:
        """Returns True if this event satisfies every predicate."""
        return all(self._holds(predicate) for predicate in conjunction)

    def _holds(self, predicate: Predicate) -> bool:
        if isinstance(predicate, Texts):
            return predicate.holds(self.text)
        if isinstance(predicate, Networks):
            return predicate.holds(4 if len(self.address) == 4 else 6, self.address)
        return predicate.holds(self.numbers.get(predicate.dim, 0))


def sample(
    kind: EventKind,
    what: str,
    *,
    vital: bool = False,
    text: bytes = b"",
    address: bytes = _ELSEWHERE,
    task: str = "",
    **words: str | int,
) -> Sample:
    """Returns an event of that kind; `words` are its operands, `task` one of TASK_WORDS."""
    numbers = {DIM_FACTS: TASK_WORDS[task] if task else 0, DIM_EXE: _PROGRAM}
    for name, word in words.items():
        operand = EVENTS[kind].operand(name)
        assert operand is not None, (kind, name)
        value = word if isinstance(word, int) else operand.words[word][0]
        numbers[operand.dim] = numbers.get(operand.dim, 0) | value
    return Sample(kind, what, numbers, text, address, vital)


def file_sample(
    kind: EventKind, filesystem: str, path: bytes, what: str, *, vital: bool = True, **more: Any
) -> Sample:
    """Returns an event on a file."""
    name = fnv1a(path.rpartition(b"/")[2])
    return sample(kind, what, vital=vital, text=path, filesystem=filesystem, name=name, **more)


def device_sample(what: str, major: int, minor: int, access: str, *, vital: bool = True) -> Sample:
    """Returns an event on a character device."""
    numbers = {0: 2, 1: {"mknod": 1, "read": 2, "write": 4}[access], 2: major << 20 | minor, 3: major}
    return Sample(EventKind.DEVICE_ACCESS, what, {**numbers, DIM_FACTS: 0}, vital=vital)


def rule_matches(rule: Rule, one: Sample) -> bool:
    """Returns True if a rule matches an event and none of its exceptions does."""
    if one.kind not in rule.events:
        return False
    try:
        atoms = lower(rule, one.kind)
    except TooMany:
        return False
    return any(one.satisfies(a.matches) and not any(map(one.satisfies, a.exceptions)) for a in atoms)
