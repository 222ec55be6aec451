# SPDX-License-Identifier: Apache-2.0
"""Installs CompiledPolicies in the kernel: one write switches generations, without a gap or a mixture.

Each table has two halves. The next generation is written into the half that no program reads, complete with
the profile of every container. Then `generation` is written, and every event that starts after that is
decided by the new rules. The old half is emptied once no program can be reading it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from ringfence.abi import CONTAINER, EVENT_MAX, GENERATIONS, NO_RULE, SET_AT_BIRTH, WRITE_PROFILES
from ringfence.bpf.maps import Map, wait_for_programs
from ringfence.errors import Error
from ringfence.policy import encode
from ringfence.policy.compiled import CompiledPolicies, CompiledRule
from ringfence.policy.model import ContainerFacts

__all__ = ["Generations"]

_TABLES = ("rule_operands", "rule_texts", "rule_addresses")
_REMEMBERED = 8  # generations of rule numbers that are kept, for records that are still in the rings


class Generations:
    """The policies in force. Used by the agent's loop only."""

    def __init__(self, map_of: Callable[[str], Map]) -> None:
        """`map_of` gives the kernel's maps by name."""
        self._map_of = map_of
        self._number = map_of("generation").get_int(0)
        self._live: _Generation | None = None
        self._halves = tuple(_Half(map_of, half) for half in range(GENERATIONS))
        self._assigned: dict[int, tuple[int, int]] = {}  # slot -> cgroup that owned it, assigned profile
        self._remembered: OrderedDict[int, Mapping[int, CompiledRule]] = OrderedDict()
        self._slots = map_of("slots")
        self._words = memoryview(self._slots.mapped()).cast("B").cast("I")
        self._stride = (CONTAINER.size + 7) // 8 * 8 // 4
        self._profile = CONTAINER.offset_of("profile") // 4

    @property
    def number(self) -> int:
        """The number of the generation in force; 0: none yet."""
        return self._number

    @property
    def compiled(self) -> CompiledPolicies | None:
        """The policies in force, or None."""
        return self._live.compiled if self._live else None

    def install(
        self, compiled: CompiledPolicies, containers: Mapping[int, ContainerFacts | None] | None = None
    ) -> int:
        """Puts a set in force for all containers (slot -> its facts) at once; returns its generation number.

        After an exception the previous set is still in force: OSError, or an Error if the set does not fit.
        """
        number = self._number + 1
        half = self._halves[number % GENERATIONS]
        try:
            half.write(compiled)
            building = _Generation(compiled, half)
            assigned = self._write_profiles(building, containers or {})
            self._map_of("generation").set(0, number)
        except BaseException:
            half.clear()
            raise
        old, self._live, self._number = self._live, building, number
        self._assigned = assigned
        self._remember(number, compiled.rules)
        wait_for_programs()
        if old is not None:
            old.half.clear()
        return number

    def _write_profiles(
        self, building: _Generation, containers: Mapping[int, ContainerFacts | None]
    ) -> dict[int, tuple[int, int]]:
        # This half still has the profiles of the generation before the current one.
        assigned: dict[int, tuple[int, int]] = {}
        wanted = dict.fromkeys(range(self._slots.max_entries), 0)
        for slot, facts in containers.items():
            bits = building.compiled.bits(building.compiled.select(facts), facts)
            wanted[slot] = self._profile_for(building, bits, assigned)
            assigned[slot] = self._owner(slot), wanted[slot]
        self._set_profiles(building.half.number, wanted)
        return assigned

    def _set_profiles(self, half: int, wanted: Mapping[int, int]) -> list[int]:
        """Returns the slots that had another profile."""
        changed = [slot for slot, profile in wanted.items() if self._profile_of(slot, half) != profile]
        if changed:
            places = b"".join(encode.index(slot, half) for slot in changed)
            values = b"".join(encode.u32(wanted[slot]) for slot in changed)
            self._slots.writer.set(WRITE_PROFILES, places, values, len(changed))
        return changed

    def _profile_of(self, slot: int, half: int) -> int:
        return self._words[slot * self._stride + self._profile + half]

    def _profile_for(self, building: _Generation, bits: int, assigned: Mapping[int, tuple[int, int]]) -> int:
        """Numbers of sets that no container has any more are used again when there is no other."""
        if building.is_full:
            building.reclaim(profile for _, profile in assigned.values())
            wait_for_programs()
        return building.profile_for(bits)

    def _owner(self, slot: int) -> int:
        """Returns the cgroup that owns the slot: the first member of the struct."""
        at = slot * self._stride
        return int(self._words[at] | self._words[at + 1] << 32)

    @property
    def remembered(self) -> Mapping[int, Mapping[int, CompiledRule]]:
        """Generation -> the meaning of its rule numbers, for the last few generations."""
        return dict(self._remembered)

    def follow(self, generations: Mapping[int, Mapping[int, CompiledRule]]) -> None:
        """Continues a previous agent's numbering, so that no number is reused. Before the first install."""
        for number in sorted(generations):
            self._number = max(self._number, number)
            self._remember(number, generations[number])

    def _remember(self, number: int, rules: Mapping[int, CompiledRule]) -> None:
        self._remembered[number] = rules
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def rule(self, generation: int, number: int) -> CompiledRule | None:
        """Returns the meaning of a rule number; None for an unknown number or an old generation."""
        return None if number == NO_RULE else self._remembered.get(generation, {}).get(number)

    def profile_for(self, bits: int) -> int:
        """Returns the profile of containers with this set of rules and exceptions; creates it if new."""
        return self._profile_for(self._live, bits, self._assigned) if self._live else 0

    def assign(self, slot: int, cgroup: int, container: ContainerFacts | None) -> frozenset[int]:
        """Puts a container's policies in force for its slot; None: nothing is known about it.

        Does nothing if the slot belongs to another cgroup by now: what is learned of a container that
        has ended must not change the next one's policies.
        """
        if self._live is None or self._owner(slot) != cgroup:
            return frozenset()
        policies = self._live.compiled.select(container)
        profile = self.profile_for(self._live.compiled.bits(policies, container))
        self._set_profiles(self._live.half.number, {slot: profile})
        self._assigned[slot] = self._owner(slot), profile
        return policies

    def restore_slot(self, slot: int, cgroup: int) -> bool:
        """Restores the profile in a container's slot. Returns True if it had to be corrected.

        A container without an assignment has profile 0, the initial one.
        """
        if self._live is None or self._owner(slot) != cgroup:
            return False
        owner, wanted = self._assigned.get(slot, (cgroup, 0))
        if owner != cgroup:  # the slot has been reused meanwhile
            return False
        return bool(self._set_profiles(self._live.half.number, {slot: wanted}))

    def confirm(self, slot: int, policies: frozenset[int], container: ContainerFacts) -> bool:
        """Reads back from the kernel. Returns True if exactly these policies are in force for a slot, with
        the exceptions that its container has.
        """
        if self._live is None:
            return False
        half = self._live.half
        held = half.set_of(self._profile_of(slot, half.number) or SET_AT_BIRTH)
        return held == encode.ruleset(self._live.compiled.bits(policies, container))

    def clear(self, slot: int) -> None:
        """Resets a slot that is about to be freed: its next container starts with profile 0."""
        self._assigned.pop(slot, None)
        for half in range(GENERATIONS):
            self._set_profiles(half, {slot: 0})


class _Half:
    """One half of each table."""

    def __init__(self, map_of: Callable[[str], Map], number: int) -> None:
        self.number = number
        self._map_of = map_of
        self.sets = map_of("rule_sets").max_entries // GENERATIONS
        self._held: dict[str, list[bytes]] = {name: _keys(map_of(name), number) for name in _TABLES}

    def write(self, compiled: CompiledPolicies) -> None:
        """Replaces the contents. No program may be reading this half."""
        self._require_space(compiled)
        self.clear()
        events = {encode.index(event, self.number): bytes(encode.EVENT_BYTES) for event in range(EVENT_MAX)}
        self._map_of("rule_events").update_batch(events | encode.events(compiled, self.number))
        for name, entries in self._tables(compiled).items():
            self._held[name] = list(entries)
            self._map_of(name).update_batch(entries)
        sets = {encode.index(i, self.number): encode.ruleset(bits) for i, bits in enumerate(compiled.sets)}
        self._map_of("rule_sets").update_batch(sets)
        self._map_of("rule_actions").set(self.number, encode.actions(compiled))

    def _tables(self, compiled: CompiledPolicies) -> dict[str, dict[bytes, bytes]]:
        return {
            "rule_operands": encode.operands(compiled, self.number),
            "rule_texts": encode.texts(compiled, self.number),
            "rule_addresses": encode.addresses(compiled, self.number),
        }

    def _require_space(self, compiled: CompiledPolicies) -> None:
        """Raises Error if a table is too small. Every container can have a set of its own, too."""
        space = {name: self._map_of(name).max_entries // GENERATIONS for name in _TABLES}
        space["rule_sets"] = self.sets - self._map_of("slots").max_entries
        for name, needed in compiled.entries.items():
            if needed > space[name]:
                raise Error(
                    f"the policies need {needed} entries in {name}; at most {space[name]} are possible",
                    hint="use fewer rules, or fewer values in them",
                )

    def put_set(self, number: int, bits: int) -> None:
        """Writes a set that no program uses yet."""
        self._map_of("rule_sets").set(encode.index(number, self.number), encode.ruleset(bits))

    def set_of(self, number: int) -> bytes | None:
        """Returns a set of rules as stored in the kernel."""
        return self._map_of("rule_sets").get(encode.index(number, self.number))

    def clear(self) -> None:
        """Frees the memory of the tables that need none when they are empty."""
        for name in _TABLES:
            self._map_of(name).delete_batch(self._held[name])
            self._held[name] = []


def _keys(table: Map, half: int) -> list[bytes]:
    keys = table.keys()
    return [key for key in keys if encode.half_of(table.name, key) == half]


class _Generation:
    """The sets of one generation: those of the policies, and one for each profile of containers."""

    def __init__(self, compiled: CompiledPolicies, half: _Half) -> None:
        self.compiled, self.half = compiled, half
        self._first = len(compiled.sets)
        self._free = list(reversed(range(self._first, half.sets)))
        # Profile 0 is no set: a container without rules needs another number for the empty set.
        self._profiles = {bits: number for number, bits in enumerate(compiled.sets) if number}

    @property
    def is_full(self) -> bool:
        """Returns True if no number of a set is free."""
        return not self._free

    def profile_for(self, bits: int) -> int:
        """See Generations.profile_for."""
        profile = self._profiles.get(bits)
        if profile is None:
            profile = self._free.pop()
            self.half.put_set(profile, bits)
            self._profiles[bits] = profile
        return profile

    def reclaim(self, used: Iterable[int]) -> None:
        """Frees the numbers of profiles that are not in use. Programs may still be reading them."""
        kept = set(used)
        gone = {bits: n for bits, n in self._profiles.items() if n >= self._first and n not in kept}
        self._free += gone.values()
        self._profiles = {bits: n for bits, n in self._profiles.items() if bits not in gone}
