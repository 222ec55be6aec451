# SPDX-License-Identifier: Apache-2.0
"""Rules on events of the operator's own probes (`event: probe.NAME`), which user space decides.

The seam between policies and custom probes: a probe says which words its events have (ProbeWords), the
loader (ringfence.policy.probe_reader) checks rules against them and keeps them apart from those that are
compiled for the kernel, and `ProbeRule.holds` answers for one event. Nothing here knows bcc, files or the
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
#: what an event holds: a number, a text, or an address as text
Value = int | str
Test = Callable[[Value], bool]


class FieldWords(NamedTuple):
    """One field of a probe's events: `kind` is number, text or ip."""

    kind: str
    unit: str = ""


class ProbeWords(NamedTuple):
    """What policies may say of a probe. `in_task`: its events name the task that they are about."""

    label: str
    fields: Mapping[str, FieldWords]
    in_task: bool
    broken: str = ""  # the file whose mistakes keep the probe from being known


class _Values(Protocol):
    def get(self, field: str, /) -> Value | None: ...


class FieldTest(NamedTuple):
    """One key of a block: any of the tests holds (or, negated, none)."""

    field: str
    tests: tuple[Test, ...]
    negated: bool


#: every key must hold; empty: always
Block = tuple[FieldTest, ...]


@dataclass(frozen=True, slots=True)
class ProbeRule:
    """One rule on one probe. `action` is what it asks for: ALERT or KILL."""

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
        """Whether an event with these values is what the rule is about."""
        return _holds(self.match, values) and not any(_holds(block, values) for block in self.exceptions)


def _holds(block: Block, values: _Values) -> bool:
    for key in block:
        value = values.get(key.field)
        if value is None or any(test(value) for test in key.tests) == key.negated:
            return False
    return True
