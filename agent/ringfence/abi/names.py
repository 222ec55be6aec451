# SPDX-License-Identifier: Apache-2.0
"""What the members of shared enums are called in policies, JSON and metrics: bases of generated classes."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from functools import cache, cached_property
from typing import Self

__all__ = ["CounterName", "EventName", "FactName", "LowerName"]


class LowerName(IntEnum):
    """A member's label is its name in lower case."""

    @cached_property
    def label(self) -> str:
        return self.name.lower()


class FactName(IntFlag):
    """The same, for a single flag only."""

    @property
    def label(self) -> str:
        return str(self.name).lower()


class CounterName(IntEnum):
    """The label of the activity metric: open, namespace."""

    @cached_property
    def label(self) -> str:
        return self.name.removeprefix("SYS_").lower()


class EventName(IntEnum):
    """Events have a group, or are system calls: file.open, unshare."""

    @cached_property
    def label(self) -> str:
        """The name in policies, JSON and metrics."""
        if self.is_syscall:
            return self.name.removeprefix("SYS_").lower()
        group, _, what = self.name.lower().partition("_")
        group = "network" if group == "net" else group
        return f"{group}.{what}" if what else group

    @classmethod
    def from_label(cls, label: str) -> Self:
        """The kind of that name. KeyError when there is none."""
        return cls(_by_label(cls)[label])

    @property
    def is_syscall(self) -> bool:
        return self.name.startswith("SYS_")


@cache
def _by_label(kinds: type[EventName]) -> dict[str, int]:
    return {kind.label: kind.value for kind in kinds if kind}
