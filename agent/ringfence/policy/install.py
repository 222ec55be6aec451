# SPDX-License-Identifier: Apache-2.0
"""Installs CompiledPolicies in the kernel: one write switches generations, without a gap or a mixture.

A generation is a set of inner maps in one of the two halves of each outer map. The next one is built in the
other half, complete with the profile of every container. Then `generation` is written, and every event that
starts after that is decided by the new rules. The old maps are freed once no program can be using them.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping

from ringfence.abi import CONTAINER, GENERATIONS, INNER_MAPS, NO_RULE
from ringfence.bpf.maps import Map, create_map
from ringfence.policy import encode
from ringfence.policy.compiled import CompiledPolicies, CompiledRule
from ringfence.policy.model import ContainerFacts

__all__ = ["Generations"]

#: complete when created: frozen, so that a process that obtains a descriptor cannot change them
_CONSTANT = frozenset(("rule_events", "rule_operands", "rule_texts", "rule_addresses", "rule_actions"))
_RESERVED_SETS, _RESERVED_PROFILES = 64, 64
_REMEMBERED = 8  # generations of rule numbers that are kept, for records that are still in the rings


class Generations:
    """The policies in force. Used by the agent's loop only."""

    def __init__(self, map_of: Callable[[str], Map], made: Callable[[Map], None] = lambda made: None) -> None:
        """`map_of` gives the kernel's maps by name; `made` is called with every inner map before
        it is used.
        """
        self._map_of, self._made = map_of, made
        self._number = map_of("generation").get_int(0)
        self._live: _Generation | None = None
        self._assigned: dict[int, tuple[int, int]] = {}  # slot -> cgroup that owned it, assigned profile
        self._remembered: OrderedDict[int, Mapping[int, CompiledRule]] = OrderedDict()
        slots = map_of("slots")
        self._slots = slots.max_entries
        self._words = memoryview(slots.mapped()).cast("B").cast("I")
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

        After an OSError the previous set is still in force.
        """
        number = self._number + 1
        half = number % GENERATIONS
        building = _Generation(compiled, self._map_of, half, self._made)
        try:
            building.write()
            assigned = self._write_profiles(building, containers or {})
            self._map_of("generation").set(0, number)
        except BaseException:
            building.discard()
            raise
        old, self._live, self._number = self._live, building, number
        self._assigned = assigned
        self._remember(number, compiled.rules)
        building.wait_for_programs()
        if old is not None:
            old.discard()
        return number

    def _write_profiles(
        self, building: _Generation, containers: Mapping[int, ContainerFacts | None]
    ) -> dict[int, tuple[int, int]]:
        # This half still holds ids of the generation before the current one: other slots get profile 0.
        assigned: dict[int, tuple[int, int]] = {}
        for slot in range(self._slots):
            index = slot * self._stride + self._profile + building.half
            wanted = 0
            if slot in containers:
                wanted = building.profile_for(building.compiled.select(containers[slot]))
                assigned[slot] = self._owner(slot), wanted
            if self._words[index] != wanted:
                self._words[index] = wanted
        return assigned

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

    def profile_for(self, policies: frozenset[int]) -> int:
        """Returns the profile of containers to which these policies (by index) apply; creates it if new."""
        return self._live.profile_for(policies) if self._live else 0

    def assign(self, slot: int, container: ContainerFacts | None) -> frozenset[int]:
        """Puts a container's policies in force for its slot; None: nothing is known about it."""
        if self._live is None:
            return frozenset()
        policies = self._live.compiled.select(container)
        index = slot * self._stride + self._profile + self._live.half
        profile = self._words[index] = self._live.profile_for(policies)
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
        index = slot * self._stride + self._profile + self._live.half
        if self._words[index] == wanted:
            return False
        self._words[index] = wanted
        return True

    def confirm(self, slot: int, policies: frozenset[int]) -> bool:
        """Reads back from the kernel. Returns True if exactly these policies are in force for a slot."""
        if self._live is None:
            return False
        profile = self._words[slot * self._stride + self._profile + self._live.half]
        return self._live.holds(profile) == encode.ruleset(self._live.compiled.bits(policies))

    def clear(self, slot: int) -> None:
        """Resets a slot that is about to be freed: its next container starts with profile 0."""
        self._assigned.pop(slot, None)
        begin = slot * self._stride + self._profile
        for half in range(GENERATIONS):
            self._words[begin + half] = 0


class _Generation:
    """The inner maps of one generation."""

    def __init__(
        self,
        compiled: CompiledPolicies,
        map_of: Callable[[str], Map],
        half: int,
        made: Callable[[Map], None],
    ) -> None:
        self.compiled, self._made = compiled, made
        self.half = half
        self._map_of = map_of
        self._inner: dict[str, Map] = {}
        self._sets = {bits: number for number, bits in enumerate(compiled.sets)}
        self._profiles: dict[int, int] = {}  # id of a set -> number of a profile

    def write(self) -> None:
        """Creates and fills all inner maps and puts them into their half, which no program uses yet."""
        compiled = self.compiled
        at_birth = compiled.bits(compiled.at_birth)
        self._sets.setdefault(at_birth, len(self._sets))
        self._profiles[self._sets[at_birth]] = 0
        sets = {encode.u32(number): encode.ruleset(bits) for bits, number in self._sets.items()}
        contents = {
            "rule_sets": (sets, len(sets) + _RESERVED_SETS),
            "rule_events": (encode.events(compiled), 0),
            "rule_profiles": ({encode.u32(0): encode.u32(self._sets[at_birth])}, 1 + _RESERVED_PROFILES),
            "rule_operands": (encode.operands(compiled), 0),
            "rule_texts": (encode.texts(compiled), 0),
            "rule_addresses": (encode.addresses(compiled), 0),
            "rule_actions": ({encode.u32(0): encode.actions(compiled)}, 0),
        }
        for name, (entries, capacity) in contents.items():
            self._inner[name] = self._make(name, entries, capacity)
            self._map_of(name).set(self.half, self._inner[name].fd)

    def _make(self, name: str, entries: dict[bytes, bytes], capacity: int) -> Map:
        shape = INNER_MAPS[name]
        count = shape.max_entries or capacity or max(1, len(entries))
        made = create_map(shape.type, name, shape.key, shape.value, count, flags=shape.flags)
        try:
            self._made(made)
            made.update_batch(entries)
            if name in _CONSTANT:
                made.freeze()
        except BaseException:
            made.close()
            raise
        return made

    def profile_for(self, policies: frozenset[int]) -> int:
        """See Generations.profile_for. The set is written before the profile that names it."""
        bits = self.compiled.bits(policies)
        set_id = self._sets.get(bits)
        if set_id is None:
            set_id = self._sets[bits] = len(self._sets)
            self._put("rule_sets", set_id, encode.ruleset(bits))
        profile = self._profiles.get(set_id)
        if profile is None:
            profile = self._profiles[set_id] = len(self._profiles)
            self._put("rule_profiles", profile, encode.u32(set_id))
        return profile

    def holds(self, profile: int) -> bytes | None:
        """Returns the set of rules of a profile as stored in the kernel, or None."""
        number = self._inner["rule_profiles"].get(profile)
        return None if number is None else self._inner["rule_sets"].get(int.from_bytes(number, sys.byteorder))

    def _put(self, name: str, index: int, value: bytes) -> None:
        inner = self._inner[name]
        if index >= inner.max_entries:
            # Numbers keep their meaning in the larger copy, so a program may use either.
            larger = self._make(name, dict(inner.items()), inner.max_entries * 2)
            self._map_of(name).set(self.half, larger.fd)
            inner.close()
            inner = self._inner[name] = larger
        inner.set(index, value)

    def wait_for_programs(self) -> None:
        """Waits until no program that started under the previous generation is running.

        The kernel waits for an RCU grace period after every change of a map of maps (1ae80cf31938,
        4.19), even one that writes the same value.
        """
        self._map_of("rule_actions").set(self.half, self._inner["rule_actions"].fd)

    def discard(self) -> None:
        """Frees the maps."""
        for name, inner in self._inner.items():
            self._map_of(name).delete(self.half)
            inner.close()
        self._inner.clear()
