# SPDX-License-Identifier: Apache-2.0
"""The kernel's table of containers, over maps in memory."""

from __future__ import annotations

import errno
import mmap
import sys
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

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
from ringfence.containers.slots import KernelSlots

SLOTS = 3


class Slots:
    """The map `slots`, mapped into memory."""

    max_entries = SLOTS

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SLOTS * CONTAINER.size)
        self.written: list[tuple[Any, ...]] = []
        self.writer = SimpleNamespace(set=lambda *words: self.written.append(words))

    def mapped(self) -> mmap.mmap:
        return self.memory

    def set(self, slot: int, value: bytes) -> None:
        self.memory[slot * CONTAINER.size : (slot + 1) * CONTAINER.size] = value


class Stack(list[int]):
    """The map `free_slots`: a stack."""

    def pop(self) -> int | None:  # type: ignore[override]  # a map with nothing left says so
        return super().pop() if self else None

    push = list.append

    def push_all(self, slots: Iterable[int]) -> None:
        self.extend(slots)


class Owners(dict[int, bytes]):
    """The map `containers`."""

    error = 0

    def set(self, cgroup: int, slot: int, flags: int) -> None:
        assert flags == 1  # BPF_NOEXIST
        if self.error:
            raise OSError(self.error, "")
        if cgroup in self:
            raise FileExistsError
        self[cgroup] = slot.to_bytes(4, sys.byteorder)

    def delete(self, cgroup: int) -> bool:
        return self.pop(cgroup, None) is not None


class Counters(dict[int, bytes]):
    """The map `counters`."""

    set = dict.__setitem__


class Table:
    """The table over the four maps."""

    def __init__(self) -> None:
        self.slots, self.free, self.owners, self.counters = Slots(), Stack(), Owners(), Counters()
        maps: Any = (self.slots, self.free, self.owners, self.counters)
        self.table = KernelSlots(*maps)
        self.table.put_all()


@pytest.fixture
def made() -> Table:
    """An empty table."""
    return Table()


def test_slots_are_taken_from_the_lowest_on(made: Table) -> None:
    """Until there is none."""
    table = made.table
    assert (table.size, table.unused) == (SLOTS, SLOTS)
    assert [table.take() for _ in range(SLOTS + 1)] == [0, 1, 2, None]


def test_a_filled_slot_is_read_as_written(made: Table) -> None:
    """With the state of a container that was there before the agent, unless said otherwise."""
    table = made.table
    table.fill(0, 5, 7)
    table.fill(2, 6, 8, adopted=False, removed=True)
    first = ContainerValue(5, 7, state=STATE_USED | STATE_ADOPTED)
    second = ContainerValue(6, 8, state=STATE_USED | STATE_REMOVED)
    assert (table.read(0), table.read(2)) == (first, second)
    assert list(table.used()) == [(0, first), (2, second)]
    assert table.unused == 1
    assert table.read(1) == ContainerValue(0)
    assert table.read(SLOTS) is None


def test_a_cgroup_has_one_owner(made: Table) -> None:
    """The first to bind it; a slot put back is empty and free again."""
    table = made.table
    slot = table.take()
    assert slot == 0
    table.fill(slot, 5, 7)
    assert table.owner(5) is None
    assert table.bind(5, slot)
    assert not table.bind(5, 1)
    assert table.owner(5) == slot
    assert table.full == 0
    table.put_back(slot)
    assert table.read(slot) == ContainerValue(0)
    assert made.free == [2, 1, 0]


@pytest.mark.parametrize("number", [errno.E2BIG, errno.ENOSPC, errno.ENOMEM])
def test_a_full_map_of_owners_is_counted(made: Table, number: int) -> None:
    """Its container is refused, and the agent goes on."""
    made.owners.error = number
    assert not made.table.bind(5, 0)
    assert made.table.full == 1


def test_another_error_is_none_of_a_full_map(made: Table) -> None:
    """EPERM means that something is wrong with the agent."""
    made.owners.error = errno.EPERM
    with pytest.raises(PermissionError):
        made.table.bind(5, 0)
    assert made.table.full == 0


def test_the_agents_cgroups_are_exempt(made: Table) -> None:
    """Its own with all below it, those above it without."""
    made.table.exempt([1, 2], 3)
    assert {cgroup: made.table.owner(cgroup) for cgroup in (1, 2, 3)} == {
        1: SKIP_SLOT,
        2: SKIP_SLOT,
        3: NEVER_SLOT,
    }


def test_a_container_is_condemned_by_its_slot(made: Table) -> None:
    """Cgroups that are no container have a number that is no slot."""
    table = made.table
    assert table.bind(5, SLOTS - 1)
    table.exempt([6], 7)
    table.condemn(6)
    table.condemn(9)
    assert made.slots.written == []
    table.condemn(5)
    assert made.slots.written == [(WRITE_CONDEMNED, (SLOTS - 1).to_bytes(4, sys.byteorder), b"", 1)]


def test_who_deletes_the_owner_frees_the_slot(made: Table) -> None:
    """Only once, with its counters; the kernel may have been first."""
    table = made.table
    slot = table.take()
    assert slot == 0
    table.fill(slot, 5, 7)
    assert table.bind(5, slot)
    made.counters[slot] = b"\0\1\0"
    assert table.free(slot, 5)
    assert made.counters[slot] == bytes(3)
    assert (table.read(slot), table.unused, made.free) == (ContainerValue(0), SLOTS, [2, 1, 0])
    assert not table.free(slot, 5)
    assert made.free == [2, 1, 0]


def test_the_memory_is_given_back(made: Table) -> None:
    """A view of it would keep it mapped."""
    made.table.close()
    assert made.slots.memory.closed
