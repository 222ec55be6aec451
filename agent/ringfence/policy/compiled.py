# SPDX-License-Identifier: Apache-2.0
"""The output of the compiler: the tables of one generation, and the meaning of its rule numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ringfence.abi import Action, EventKind, Mechanism
from ringfence.policy.model import ContainerFacts, Mode, Policy, PolicySet, Rule, Traits
from ringfence.policy.tiers import Outcome

__all__ = ["Actions", "BlindRule", "CompiledPolicies", "CompiledRule", "EventTable", "Scoped", "Shortfall"]
__all__ += ["at_birth", "union"]


class CompiledRule(NamedTuple):
    """The meaning of a rule number in a record.

    `action` is in force; `enforced` is the outcome that mode enforce has or would have.
    """

    number: int
    policy: str
    rule_id: str
    title: str
    severity: str
    attack: tuple[str, ...]
    references: tuple[str, ...]
    file: str
    line: int
    events: frozenset[EventKind]
    asked_action: Action
    action: Action
    mechanism: Mechanism
    mode: Mode
    enforced: Outcome
    written: frozenset[EventKind] = frozenset()  # all events of the rule as written; `events` are this bit's


class Shortfall(NamedTuple):
    """A rule with a weaker effective action than requested, on one of its events."""

    rule: Rule
    event: EventKind
    outcome: Outcome

    def __str__(self) -> str:
        place, asked = self.rule.place, self.rule.action.label
        effective = self.outcome.action.label
        where = f"{place.file}:{place.line}: rule {self.rule.id}"
        return (
            f"{where}: requests {asked} on {self.event.label}; effective action on this node: {effective}"
            f" ({self.outcome.why})"
        )


class BlindRule(NamedTuple):
    """A rule with no effect on some of its events (or on all): this node neither stops nor reports them."""

    policy: Policy
    rule: Rule
    events: tuple[EventKind, ...]
    why: str

    @property
    def whole(self) -> bool:
        """True if the rule has no effect at all."""
        return frozenset(self.events) == frozenset(self.rule.events)


class EventTable(NamedTuple):
    """struct rf_event_rules: ids of sets, DIM_* by dim, masks by dim."""

    rules: int
    dims: bytes
    other: tuple[int, ...]
    masks: tuple[int, ...]


class Actions(NamedTuple):
    """Sets of bits that deny, that kill, and that are exceptions (the others alert).

    `clears`: exception -> the bit that it clears.
    """

    deny: int
    kill: int
    exceptions: int
    clears: Mapping[int, int]


class Scoped(NamedTuple):
    """The bits of a policy's exceptions that hold for some containers only."""

    policy: int
    scope: Traits
    bits: int


def at_birth(policies: PolicySet) -> frozenset[int]:
    """See CompiledPolicies.at_birth."""
    return frozenset(i for i, p in enumerate(policies.policies) if p.selector.at_birth and not p.bound)


def union(policy_bits: Sequence[int], policies: Iterable[int]) -> int:
    """See CompiledPolicies.bits."""
    bits = 0
    for index in policies:
        bits |= policy_bits[index]
    return bits


@dataclass(frozen=True)
class CompiledPolicies:
    """One generation. A set has a bit for each rule; ids are indexes into `sets`, which begins with the
    empty set and the set of `at_birth`.
    """

    policies: PolicySet
    rules: Mapping[int, CompiledRule]
    sets: tuple[int, ...]
    events: Mapping[EventKind, EventTable]
    operands: Mapping[tuple[EventKind, int, int], int]
    texts: Mapping[tuple[EventKind, bytes, bool], int]
    addresses: Mapping[tuple[EventKind, int, bytes, int], int]
    actions: Actions
    policy_bits: tuple[int, ...]
    shortfalls: tuple[Shortfall, ...]
    scoped: tuple[Scoped, ...] = ()

    @property
    def at_birth(self) -> frozenset[int]:
        """The policies (by index) that apply to a container about which nothing is known yet.

        A policy from an enrolment request is never one of them, regardless of its selector.
        """
        return at_birth(self.policies)

    @property
    def blind(self) -> tuple[BlindRule, ...]:
        """Returns the rules that have no effect on some of their events, in the order of the files."""
        found: dict[int, list[Shortfall]] = {}
        for one in self.shortfalls:
            if one.outcome.action is Action.NONE:
                found.setdefault(id(one.rule), []).append(one)
        return tuple(
            BlindRule(
                policy,
                rule,
                tuple(one.event for one in some),
                "; ".join(dict.fromkeys(one.outcome.why for one in some)),
            )
            for policy in self.policies.policies
            for rule in policy.rules
            if (some := found.get(id(rule)))
        )

    def select(self, container: ContainerFacts | None) -> frozenset[int]:
        """Returns the policies (by index) that apply to a container; None: nothing is known about it."""
        if container is None:
            return self.at_birth
        return frozenset(i for i, p in enumerate(self.policies.policies) if p.holds_for(container))

    def bits(self, policies: Collection[int], container: ContainerFacts | None = None) -> int:
        """Returns the set of all rules of these policies and of their exceptions, those for some containers
        only where this is one of them.
        """
        bits = union(self.policy_bits, policies)
        if container is not None and container.settled:
            for one in self.scoped:
                if one.policy in policies and one.scope.matches(container, exempting=True):
                    bits |= one.bits
        return bits

    @property
    def notes(self) -> tuple[str, ...]:
        """The rules with a weaker effective action than requested, one per line."""
        return tuple(str(shortfall) for shortfall in self.shortfalls)

    @property
    def entries(self) -> Mapping[str, int]:
        """The number of entries of each table, by the name of its map."""
        return {
            "rule_sets": len(self.sets),
            "rule_operands": len(self.operands),
            "rule_texts": len(self.texts),
            "rule_addresses": len(self.addresses),
        }
