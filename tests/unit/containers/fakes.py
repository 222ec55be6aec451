# SPDX-License-Identifier: Apache-2.0
"""A fake of the kernel's table of containers, and events as the probes send them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from ringfence.abi import (
    FLAG_TRUNCATED,
    NEVER_SLOT,
    NO_SLOT,
    SKIP_SLOT,
    STATE_ADOPTED,
    STATE_REMOVED,
    STATE_STARTED,
    STATE_USED,
    ContainerValue,
    EventKind,
)
from ringfence.events import ContainerEvent

__all__ = ["FakeSlots", "create", "remove", "start", "stop"]


class FakeSlots:
    """A SlotTable in memory, which fails a test that frees a slot twice."""

    def __init__(self, size: int = 8) -> None:
        self.size = size
        self.free_slots = list(range(size))
        self.values: dict[int, ContainerValue] = {}
        self.owners: dict[int, int] = {}
        self.freed: list[int] = []

    @property
    def unused(self) -> int:
        return len(self.free_slots)

    def read(self, slot: int) -> ContainerValue | None:
        return self.values.get(slot, ContainerValue(0)) if slot < self.size else None

    def used(self) -> Iterator[tuple[int, ContainerValue]]:
        return iter([(slot, value) for slot, value in self.values.items() if value.cgroup])

    def owner(self, cgroup_id: int) -> int | None:
        return self.owners.get(cgroup_id)

    def take(self) -> int | None:
        return self.free_slots.pop(0) if self.free_slots else None

    def put_back(self, slot: int) -> None:
        assert slot not in self.free_slots
        self.values.pop(slot, None)
        self.free_slots.append(slot)

    def fill(
        self, slot: int, cgroup_id: int, created_ns: int, *, adopted: bool = True, removed: bool = False
    ) -> None:
        state = STATE_USED | STATE_ADOPTED | (STATE_REMOVED if removed else 0)
        self.values[slot] = ContainerValue(cgroup_id, created_ns, state=state)

    def bind(self, cgroup_id: int, slot: int) -> bool:
        return self.owners.setdefault(cgroup_id, slot) == slot

    def exempt(self, holders: Sequence[int], own: int) -> None:
        self.owners |= dict.fromkeys(holders, SKIP_SLOT) | {own: NEVER_SLOT}

    def free(self, slot: int, cgroup_id: int) -> bool:
        if self.owners.pop(cgroup_id, None) is None:
            return False
        self.freed.append(slot)
        self.put_back(slot)
        return True

    # -- what the probes do ---------------------------------------------------

    def enroll(self, cgroup_id: int) -> int:
        """Enrols a cgroup, as the kernel does at cgroup_mkdir."""
        slot = self.take()
        if slot is None:
            return NO_SLOT
        self.values[slot] = ContainerValue(cgroup_id, 1, state=STATE_USED)
        self.owners[cgroup_id] = slot
        return slot

    def change(self, slot: int, *, add_state: int = 0, tasks: int | None = None) -> None:
        value = self.values[slot]
        count = value.tasks if tasks is None else tasks
        self.values[slot] = value._replace(state=value.state | add_state, tasks=count)

    def removed(self, slot: int) -> None:
        """Marks the cgroup as removed."""
        self.change(slot, add_state=STATE_REMOVED)

    def recycled(self, slot: int) -> None:
        """Frees the slot, as the kernel does while no agent runs."""
        self.owners.pop(self.values[slot].cgroup)
        self.put_back(slot)

    def started(self, slot: int, tasks: int = 1) -> None:
        """Marks the first task as armed."""
        self.change(slot, add_state=STATE_STARTED, tasks=tasks)


def _event(kind: EventKind, cgroup: int, slot: int, **fields: object) -> ContainerEvent:
    return ContainerEvent(event=kind, container=cgroup, cgroup=cgroup, slot=slot, **fields)  # type: ignore[arg-type]


def create(cgroup: int, slot: int, path: str = "", *, truncated: bool = False) -> ContainerEvent:
    """The event of a created cgroup."""
    raw = os.fsencode(path)
    flags = FLAG_TRUNCATED if truncated else 0
    return _event(
        EventKind.CONTAINER_CREATE,
        cgroup,
        slot,
        path_raw=raw.ljust(256, b"\0"),
        path_len=len(raw),
        flags=flags,
    )


def start(cgroup: int, slot: int, **fields: object) -> ContainerEvent:
    """The event of the first armed task."""
    return _event(EventKind.CONTAINER_START, cgroup, slot, pid=100, start_ns=7, **fields)


def stop(cgroup: int, slot: int) -> ContainerEvent:
    """The event of the last armed task's end."""
    return _event(EventKind.CONTAINER_STOP, cgroup, slot)


def remove(cgroup: int, slot: int) -> ContainerEvent:
    """The event of a removed cgroup."""
    return _event(EventKind.CONTAINER_REMOVE, cgroup, slot)
