# SPDX-License-Identifier: Apache-2.0
"""Rules on events of custom probes (`event: probe.NAME`), which user space decides.

This is the interface between policies and custom probes. A probe declares the fields of its events
(ProbeWords); the loader (ringfence.policy.probe_reader) checks rules against them and separates these rules
from those compiled for the kernel; `ProbeRule.holds` decides one event. Independent of bcc, files and the
kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ringfence.abi import Action

if TYPE_CHECKING:
    from ringfence.policy.model import Place

__all__ = ["PREFIX", "Block", "FieldTest", "FieldWords", "ProbeRule", "ProbeWords", "Test", "Value"]

PREFIX = "probe."
#: a value of an event: a number, a text, or an address as text
Value = int | str
Test = Callable[[Value], bool]


class FieldWords(NamedTuple):
    """One field of a probe's events: `kind` is number, text or ip."""

    kind: str
    unit: str = ""


class ProbeWords(NamedTuple):
    """The vocabulary of a probe for policies. `in_task`: its events identify the task."""

    label: str
    fields: Mapping[str, FieldWords]
    in_task: bool
    broken: str = ""  # the file with errors, because of which the probe is not known


class _Values(Protocol):
    def get(self, field: str, /) -> Value | None: ...


class FieldTest(NamedTuple):
    """One key of a block: at least one of the tests must hold (or, negated, none)."""

    field: str
    tests: tuple[Test, ...]
    negated: bool


#: every key must hold; an empty block always holds
Block = tuple[FieldTest, ...]


@dataclass(frozen=True, slots=True)
class ProbeRule:
    """One rule on one probe. `action` is ALERT or KILL."""

    id: str
    title: str
    severity: str
    attack: tuple[str, ...]
    label: str
    match: Block
    exceptions: tuple[Block, ...]
    action: Action
    place: Place

    def holds(self, values: _Values) -> bool:
        """Returns True if the rule, with its exceptions, matches an event with these values."""
        return _holds(self.match, values) and not any(_holds(block, values) for block in self.exceptions)


def _holds(block: Block, values: _Values) -> bool:
    for key in block:
        value = values.get(key.field)
        if value is None or any(test(value) for test in key.tests) == key.negated:
            return False
    return True
