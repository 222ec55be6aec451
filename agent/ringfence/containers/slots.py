# SPDX-License-Identifier: Apache-2.0
"""The kernel's table of containers, as the registry and the adopter use it.

A slot is free (its number lies in `free_slots`), or it belongs to one cgroup id. Probes take slots at
cgroup_mkdir, the adopter takes them for what already ran; only the agent gives them back. Whole slots are
written here only while nobody else knows their number: so nothing that the probes count is overwritten.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Protocol

from ringfence.abi import CONTAINER, STATE_ADOPTED, STATE_USED, ContainerValue
from ringfence.bpf.maps import Map

__all__ = ["KernelSlots", "SlotTable"]


class SlotTable(Protocol):
    """What the registry needs of the kernel's table; unit tests bring a fake."""

    @property
    def size(self) -> int: ...

    def read(self, slot: int) -> ContainerValue | None:
        """The slot as it is now; None when there is no such slot."""

    def used(self) -> Iterator[tuple[int, ContainerValue]]:
        """Every slot that is not free."""

    def owner(self, cgroup_id: int) -> int | None:
        """The slot of an enrolled cgroup (a container's own, or one below it)."""

    def take(self) -> int | None:
        """A free slot, which nobody else gets; None: the table is full."""

    def put_back(self, slot: int) -> None:
        """Give back a slot that was taken and not used."""

    def fill(self, slot: int, cgroup_id: int, created_ns: int, *, adopted: bool = True) -> None:
        """Write a slot that was taken."""

    def bind(self, cgroup_id: int, slot: int) -> bool:
        """Enroll a cgroup with this slot; False: it already is enrolled."""

    def unbind(self, cgroup_ids: Iterable[int]) -> None:
        """Forget cgroups; those that are not enrolled are no error."""

    def free(self, slot: int) -> None:
        """Empty a slot and its counters and give it back."""


_NOEXIST = 1
_WORDS = CONTAINER.size // 8  # `cgroup` is the first of them


class KernelSlots:
    """SlotTable over the maps `slots` (mapped into memory), `free_slots`, `containers` and `counters`."""

    def __init__(self, slots: Map, free_slots: Map, containers: Map, counters: Map) -> None:
        self._free, self._containers, self._counters = free_slots, containers, counters
        self._memory = slots.mapped()
        self._cgroups = memoryview(self._memory).cast("Q")[::_WORDS]
        self._size = slots.max_entries

    @property
    def size(self) -> int:
        return self._size

    def read(self, slot: int) -> ContainerValue | None:
        if slot >= self._size:
            return None
        return ContainerValue._make(CONTAINER.unpack_from(self._memory, slot * CONTAINER.size))

    def used(self) -> Iterator[tuple[int, ContainerValue]]:
        for slot, cgroup in enumerate(self._cgroups.tolist()):
            if cgroup and (value := self.read(slot)) is not None:
                yield slot, value

    def owner(self, cgroup_id: int) -> int | None:
        raw = self._containers.get(cgroup_id)
        return None if raw is None else int.from_bytes(raw, sys.byteorder)

    def take(self) -> int | None:
        return self._free.pop()

    def put_back(self, slot: int) -> None:
        self._free.push(slot)

    def fill(self, slot: int, cgroup_id: int, created_ns: int, *, adopted: bool = True) -> None:
        state = STATE_USED | (STATE_ADOPTED if adopted else 0)
        value = ContainerValue(cgroup_id, created_ns, state=state)
        CONTAINER.pack_into(self._memory, slot * CONTAINER.size, *value)

    def bind(self, cgroup_id: int, slot: int) -> bool:
        try:
            self._containers.set(cgroup_id, slot, _NOEXIST)
        except FileExistsError:
            return False
        return True

    def unbind(self, cgroup_ids: Iterable[int]) -> None:
        for cgroup_id in cgroup_ids:
            self._containers.delete(cgroup_id)

    def free(self, slot: int) -> None:
        raw = self._counters.get(slot)
        if raw is not None and any(raw):
            self._counters.set(slot, bytes(len(raw)))
        CONTAINER.pack_into(self._memory, slot * CONTAINER.size, *([0] * len(CONTAINER.names)))
        self._free.push(slot)

    def close(self) -> None:
        """Unmap the slots."""
        self._cgroups.release()
        self._memory.close()
