# SPDX-License-Identifier: Apache-2.0
"""The kernel's table of containers, as the registry and the adopter use it.

A slot is free (its number is in `free_slots`), or it belongs to one cgroup id. Probes take slots at
cgroup_mkdir, the adopter takes them for running containers. The agent frees them, or the kernel if no agent
signals that it runs: whichever deletes the owner from `containers`, which only one can. Whole slots are only
written here while no other party knows their number, so the probes' counters are never overwritten.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

from ringfence.abi import (
    CONTAINER,
    NEVER_SLOT,
    SKIP_SLOT,
    STATE_ADOPTED,
    STATE_REMOVED,
    STATE_USED,
    WRITE_CONDEMNED,
    ContainerValue,
)
from ringfence.bpf.maps import Map

__all__ = ["KernelSlots", "SlotTable"]


class SlotTable(Protocol):
    """The interface of the kernel's table; unit tests use a fake."""

    @property
    def size(self) -> int: ...

    @property
    def unused(self) -> int:
        """The number of free slots."""

    def read(self, slot: int) -> ContainerValue | None:
        """Returns the current contents of a slot; None if there is no such slot."""

    def used(self) -> Iterator[tuple[int, ContainerValue]]:
        """Yields every slot that is not free."""

    def owner(self, cgroup_id: int) -> int | None:
        """Returns the slot of a container's cgroup; NEVER_SLOT: it must never be a container."""

    def take(self) -> int | None:
        """Takes a free slot for exclusive use; None: the table is full."""

    def put_back(self, slot: int) -> None:
        """Returns a taken slot that was not published."""

    def fill(
        self, slot: int, cgroup_id: int, created_ns: int, *, adopted: bool = True, removed: bool = False
    ) -> None:
        """Writes a taken slot."""

    def bind(self, cgroup_id: int, slot: int) -> bool:
        """Enrols a cgroup with this slot; False: it is already enrolled, or the table is full."""

    def exempt(self, holders: Sequence[int], own: int) -> None:
        """Marks the agent's cgroups as no containers: `own` with all below it, and each of its ancestors
        `holders` without the cgroups below them."""

    def free(self, slot: int, cgroup_id: int) -> bool:
        """Clears a slot and its counters and frees it; False: the kernel did so first."""


_NOEXIST = 1
_FULL = (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)
_WORDS = CONTAINER.size // 8  # `cgroup` is the first of them


class KernelSlots:
    """SlotTable over the maps `slots` (mapped into memory), `free_slots`, `containers` and `counters`."""

    def __init__(self, slots: Map, free_slots: Map, containers: Map, counters: Map) -> None:
        self._slots, self._free = slots, free_slots
        self._containers, self._counters = containers, counters
        self._memory = slots.mapped()
        self._cgroups = memoryview(self._memory).cast("Q")[::_WORDS]
        self._size = slots.max_entries
        self.full = 0  # how often `containers` was full

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
        self._zero(slot)
        self._free.push(slot)

    def put_all(self) -> None:
        """Returns all slots, which are empty: the lowest is taken first."""
        self._free.push_all(reversed(range(self._size)))

    def fill(
        self, slot: int, cgroup_id: int, created_ns: int, *, adopted: bool = True, removed: bool = False
    ) -> None:
        state = STATE_USED | (STATE_ADOPTED if adopted else 0) | (STATE_REMOVED if removed else 0)
        value = ContainerValue(cgroup_id, created_ns, state=state)
        self._slots.set(slot, CONTAINER.pack(*value))

    def bind(self, cgroup_id: int, slot: int) -> bool:
        try:
            self._containers.set(cgroup_id, slot, _NOEXIST)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _FULL:
                raise
            self.full += 1
            return False
        return True

    def exempt(self, holders: Sequence[int], own: int) -> None:
        for cgroup_id in holders:
            self.bind(cgroup_id, SKIP_SLOT)
        self.bind(own, NEVER_SLOT)

    def condemn(self, cgroup_id: int) -> None:
        """Marks an enrolled container that an earlier agent condemned."""
        slot = self.owner(cgroup_id)
        if slot is not None and slot < self._size:
            self._slots.writer.set(WRITE_CONDEMNED, slot.to_bytes(4, sys.byteorder), b"", 1)

    def free(self, slot: int, cgroup_id: int) -> bool:
        if not self._containers.delete(cgroup_id):
            return False
        raw = self._counters.get(slot)
        if raw is not None and any(raw):
            self._counters.set(slot, bytes(len(raw)))
        self.put_back(slot)
        return True

    @property
    def unused(self) -> int:
        """The number of free slots; examines all of them."""
        return self._size - sum(map(bool, self._cgroups.tolist()))

    def _zero(self, slot: int) -> None:
        self._slots.set(slot, bytes(CONTAINER.size))

    def close(self) -> None:
        """Unmaps the slots."""
        self._cgroups.release()
        self._memory.close()
