# SPDX-License-Identifier: Apache-2.0
"""The rule that a verdict rests on: a built-in rule of the self-defence, or a rule of the policies
in force.
"""

from __future__ import annotations

from ringfence.events import Event
from ringfence.policy.compiled import CompiledRule
from ringfence.policy.install import Generations
from ringfence.response.builtin import BuiltinRules

__all__ = ["RuleLookup"]


class RuleLookup:
    """Used by the loop only."""

    def __init__(self, builtin: BuiltinRules, generations: Generations) -> None:
        self._builtin, self._generations = builtin, generations

    def find(self, event: Event) -> CompiledRule | None:
        """The rule of an event; None if its number is unknown, or of a generation long gone."""
        return self._builtin.of(event) or self._generations.rule(event.generation, event.rule)
