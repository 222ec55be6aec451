# SPDX-License-Identifier: Apache-2.0
"""Compiles a PolicySet to CompiledPolicies: every table of a generation, as plain values. Pure.

No file is read and no map is touched: `ringfence.policy.install` writes the result, and a dry run uses the
same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ringfence.abi import (
    DIM_ADDRESS,
    DIM_OBJECT,
    DIM_TEXT,
    DIM_USED,
    DIMS,
    MAX_RULES,
    SET_AT_BIRTH,
    SET_EMPTY,
    Action,
    EventKind,
    Mechanism,
)
from ringfence.errors import PolicyError, Problem
from ringfence.policy import classify
from ringfence.policy.bits import Group, OutOfBits, place
from ringfence.policy.compiled import (
    Actions,
    CompiledPolicies,
    CompiledRule,
    EventTable,
    Scoped,
    Shortfall,
    at_birth,
    union,
)
from ringfence.policy.lower import MAX_EXCEPTIONS, Atom, TooMany, lower
from ringfence.policy.model import Mode, Policy, PolicySet, Rule, Traits
from ringfence.policy.operand import Bits, Conjunction, Networks, Predicate, Texts, Values
from ringfence.policy.tiers import NodeTiers, Outcome
from ringfence.policy.vocabulary import EVENTS

__all__ = ["compile_policies"]


class _Piece(NamedTuple):
    """A bit to be assigned: an atom of a rule, for the events on which it has the same outcome."""

    policy: int
    rule: Rule
    outcome: Outcome
    atoms: dict[EventKind, Atom]

    @property
    def scopes(self) -> dict[Traits | None, int]:
        """For each scope of exceptions, the maximum number of them of its events; None: all containers."""
        found: dict[Traits | None, int] = {}
        for atom in self.atoms.values():
            for scope, some in atom.scopes.items():
                found[scope] = max(found.get(scope, 0), len(some))
        return found

    @property
    def exceptions(self) -> int:
        """How many bits they need."""
        return sum(self.scopes.values())


def compile_policies(
    policies: PolicySet, node: NodeTiers, mode_override: Mode | Literal["policy"] | None = None
) -> CompiledPolicies:
    """Returns the tables for this node.

    Raises PolicyError with every rule that exceeds a limit or requires what the node lacks. `mode_override`
    replaces the mode of every policy; None and "policy" keep each policy's own mode.
    """
    override = None if mode_override == "policy" else mode_override
    problems: list[Problem] = []
    shortfalls: list[Shortfall] = []
    pieces: list[_Piece] = []
    for index, policy in enumerate(policies.policies):
        for rule in policy.rules:
            pieces += _pieces(index, rule, node, problems, shortfalls)
    try:
        starts = place([Group(frozenset(p.atoms), p.exceptions, p.outcome.action) for p in pieces])
    except OutOfBits as error:
        problems.append(_problem(pieces[_first_beyond(pieces)].rule, str(error)))
    if problems:
        raise PolicyError(
            problems, hint="`ringfence policy explain` shows the effective action of each rule on this node"
        )
    tables = _Tables()
    for piece, start in zip(pieces, starts, strict=True):
        tables.add(piece, start, policies.policies[piece.policy], override)
    tables.classify(problems)
    if problems:
        raise PolicyError(problems)
    return tables.finish(policies, shortfalls)


def _pieces(
    index: int, rule: Rule, node: NodeTiers, problems: list[Problem], shortfalls: list[Shortfall]
) -> list[_Piece]:
    by_outcome: dict[Outcome, dict[EventKind, list[Atom]]] = {}
    for event in rule.events:
        outcome = node.outcome_of(rule, event)
        if outcome.why:
            shortfalls.append(Shortfall(rule, event, outcome))
        if lack := node.lacks_for(rule.require, outcome):
            problems.append(
                _problem(rule, f"requires {rule.require}, which is not available for {event.label}: {lack}")
            )
        elif outcome.action is not Action.NONE:
            try:
                atoms = [_on_node(atom, node) for atom in lower(rule, event)]
                by_outcome.setdefault(outcome, {})[event] = atoms
            except TooMany as error:
                problems.append(_problem(rule, f"on {event.label} {error}"))
    pieces = []
    for outcome, events in by_outcome.items():
        for n in range(max((len(atoms) for atoms in events.values()), default=0)):
            some = {event: atoms[n] for event, atoms in events.items() if n < len(atoms)}
            pieces.append(_Piece(index, rule, outcome, some))
    if any(piece.exceptions > MAX_EXCEPTIONS for piece in pieces):
        problems.append(_problem(rule, f"has more than {MAX_EXCEPTIONS} exceptions on its events together"))
    return pieces


def _on_node(atom: Atom, node: NodeTiers) -> Atom:
    """Replaces the word `node` by the node's addresses, and drivers by the numbers of their devices."""

    def expanded(predicate: Predicate) -> Predicate:
        if isinstance(predicate, Networks) and predicate.node:
            return predicate._replace(networks=predicate.networks | node.addresses)
        if isinstance(predicate, Values) and predicate.drivers:
            found = (node.drivers.get(name, frozenset()) for name in predicate.drivers)
            return predicate._replace(values=predicate.values.union(*found), drivers=frozenset())
        return predicate

    def expand(conjunction: Conjunction) -> Conjunction:
        return tuple(map(expanded, conjunction))

    scoped = tuple((scope, tuple(map(expand, some))) for scope, some in atom.scoped)
    return Atom(expand(atom.matches), tuple(map(expand, atom.exceptions)), scoped)


def _first_beyond(pieces: list[_Piece]) -> int:
    """Returns the index of the first piece, in file order, for which no bit is left."""
    used = 0
    for index, piece in enumerate(pieces):
        used += piece.exceptions + 1
        if used > MAX_RULES:
            return index
    return len(pieces) - 1


def _problem(rule: Rule, message: str) -> Problem:
    return Problem(rule.place.file, rule.place.line, rule.place.column, f"rule {rule.id}", message)


class _Tables:
    """The tables under construction."""

    def __init__(self) -> None:
        self.rules: dict[int, CompiledRule] = {}
        self.policy_bits: dict[int, int] = {}
        self.scoped: dict[tuple[int, Traits], int] = {}
        self.deny = self.kill = self.exceptions = 0
        self.clears: dict[int, int] = {}
        self.atoms: dict[EventKind, dict[int, Conjunction]] = {}
        self.sets: dict[int, int] = {0: SET_EMPTY}  # bitset -> id
        self.events: dict[EventKind, EventTable] = {}
        self.operands: dict[tuple[EventKind, int, int], int] = {}
        self.texts: dict[tuple[EventKind, bytes, bool], int] = {}
        self.addresses: dict[tuple[EventKind, int, bytes, int], int] = {}

    def add(self, piece: _Piece, start: int, policy: Policy, mode_override: Mode | None) -> None:
        number = start + piece.exceptions
        mode = mode_override or policy.mode
        action = piece.outcome.action if mode == "enforce" else Action.ALERT
        self.rules[number] = _compiled_rule(number, piece, policy, mode, action)
        self.deny |= (action is Action.DENY) << number
        self.kill |= (action is Action.KILL) << number
        for bit in range(start, number):
            self.clears[bit] = number % 64
            self.exceptions |= 1 << bit
        bits, first, firsts = 1 << number, start, dict[Traits | None, int]()
        for scope, length in piece.scopes.items():
            some = ((1 << length) - 1) << first
            if scope is None:
                bits |= some
            else:
                self.scoped[piece.policy, scope] = self.scoped.get((piece.policy, scope), 0) | some
            firsts[scope] = first
            first += length
        self.policy_bits[piece.policy] = self.policy_bits.get(piece.policy, 0) | bits
        for event, atom in piece.atoms.items():
            of_event = self.atoms.setdefault(event, {})
            of_event[number] = atom.matches
            for scope, exceptions in atom.scopes.items():
                of_event.update((firsts[scope] + n, exception) for n, exception in enumerate(exceptions))

    def classify(self, problems: list[Problem]) -> None:
        for event, atoms in self.atoms.items():
            dims, masks, others = bytearray(8), [0] * DIMS, [0] * DIMS
            for dim in range(DIMS):
                try:
                    kind, masks[dim], other = self._dim(event, dim, atoms)
                except classify.TooManyBits as error:
                    problems.append(self._bits_problem(event, dim, str(error)))
                    continue
                dims[dim], others[dim] = kind, self._set(other) if kind else 0
            every = sum(1 << bit for bit in atoms)
            self.events[event] = EventTable(self._set(every), bytes(dims), tuple(others), tuple(masks))

    def _dim(self, event: EventKind, dim: int, atoms: dict[int, Conjunction]) -> tuple[int, int, int]:
        """Fills one dim's table. Returns (DIM_*, or 0 if no rule tests it; mask; the set of `other`)."""
        tests = {bit: [p for p in atom if p.dim == dim] for bit, atom in atoms.items()}
        untested = sum(1 << bit for bit, some in tests.items() if not some)
        if dim == DIM_OBJECT:
            return self._object(event, tests, untested)
        some = {bit: [p for p in ps if isinstance(p, (Values, Bits))] for bit, ps in tests.items() if ps}
        if not some:
            return 0, 0, 0
        table = classify.numbers(some, untested)
        for value, bits in table.entries.items():
            self.operands[event, dim, value] = self._set(bits)
        return DIM_USED, table.mask, table.other

    def _object(
        self, event: EventKind, tests: dict[int, list[Values | Bits | Texts | Networks]], untested: int
    ) -> tuple[int, int, int]:
        strings = {bit: p for bit, ps in tests.items() for p in ps if isinstance(p, Texts)}
        networks = {bit: p for bit, ps in tests.items() for p in ps if isinstance(p, Networks)}
        if strings:
            found = classify.texts(strings, untested)
            for (text, whole), bits in found.entries.items():
                self.texts[event, text, whole] = self._set(bits)
            return DIM_TEXT, 0, found.other
        if networks:
            ranges = classify.addresses(networks, untested)
            for (family, address, prefix), bits in ranges.entries.items():
                self.addresses[event, family, address, prefix] = self._set(bits)
            return DIM_ADDRESS, 0, ranges.other
        return 0, 0, 0

    def _set(self, bits: int) -> int:
        return self.sets.setdefault(bits, len(self.sets) + SET_AT_BIRTH)

    def _bits_problem(self, event: EventKind, dim: int, message: str) -> Problem:
        operand = next(o.name for o in EVENTS[event].operands if o.dim == dim)
        rule = next(rule for number, rule in self.rules.items() if number in self.atoms[event])
        return Problem(rule.file, rule.line, 0, f"{event.label}, {operand}", message)

    def finish(self, policies: PolicySet, shortfalls: Iterable[Shortfall]) -> CompiledPolicies:
        bits = tuple(self.policy_bits.get(index, 0) for index in range(len(policies.policies)))
        _, *others = self.sets
        return CompiledPolicies(
            policies=policies,
            rules=self.rules,
            sets=(0, union(bits, at_birth(policies)), *others),
            events=self.events,
            operands=self.operands,
            texts=self.texts,
            addresses=self.addresses,
            actions=Actions(self.deny, self.kill, self.exceptions, self.clears),
            policy_bits=bits,
            scoped=tuple(Scoped(policy, scope, some) for (policy, scope), some in self.scoped.items()),
            shortfalls=tuple(shortfalls),
        )


def _compiled_rule(number: int, piece: _Piece, policy: Policy, mode: Mode, action: Action) -> CompiledRule:
    rule, outcome = piece.rule, piece.outcome
    return CompiledRule(
        number=number,
        policy=policy.name,
        rule_id=rule.id,
        title=rule.title,
        severity=rule.severity,
        attack=rule.attack,
        references=rule.references,
        file=rule.place.file,
        line=rule.place.line,
        events=frozenset(piece.atoms),
        asked_action=rule.action,
        action=action,
        mechanism=outcome.mechanism if action is not Action.ALERT else Mechanism.OBSERVE,
        mode=mode,
        enforced=outcome,
        written=frozenset(rule.events),
    )
