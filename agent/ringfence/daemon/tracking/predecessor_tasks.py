# SPDX-License-Identifier: Apache-2.0
"""The container of each task under the earlier agent. A task that left its container's cgroup
still belongs to the container, also after a restart of the agent. Read from the earlier agent's
pinned maps; the adopting iterator binds tasks by it.

The maps are read again while the old programs decide, because these follow every fork.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress

from ringfence.abi import (
    CARRIED,
    CONTAINER,
    MAPS,
    STATE_CONDEMNED,
    STATE_REMOVED,
    TASK,
    ContainerValue,
    TaskValue,
)
from ringfence.bpf.maps import Map
from ringfence.bpf.pins import PinDirectory
from ringfence_linux.procfs import start_ticks, ticks_of

__all__ = ["PredecessorTasks"]


class PredecessorTasks:
    """Tasks of earlier agents with the same ABI; maps of another ABI are ignored."""

    def __init__(self) -> None:
        self._tables: list[Map] = []
        self._slots: list[Map] = []
        self._owners: dict[int, TaskValue] = {}

    def open(self, before: Iterable[PinDirectory]) -> None:
        """Open their maps. The newest takes precedence."""
        for found in before:
            processes, slots = _open(found, "processes"), _open(found, "slots")
            if processes is None or slots is None:
                continue
            self._tables.append(processes)
            self._slots.append(slots)

    def refresh(self) -> None:
        """Read the armed tasks again."""
        for table in self._tables:
            for key, value in table.items():
                self._owners[int.from_bytes(key, sys.byteorder)] = TaskValue._make(TASK.unpack(value))

    def owner_of(self, pid: int) -> int:
        """The cgroup id of the container that this process belongs to; 0: none."""
        task = self._owners.get(pid)
        return task.container if task is not None and _is_it(pid, task) else 0

    def carry(self, carried: Map) -> None:
        """Write the table that the kernel's iterator reads."""
        entries = {
            pid.to_bytes(4, sys.byteorder): CARRIED.pack(task.container, task.start_ns, task.facts)
            for pid, task in self._owners.items()
            if _is_it(pid, task)
        }
        carried.update_batch(dict(list(entries.items())[: carried.max_entries]))

    def outlived(self) -> Iterator[int]:
        """The ids of removed cgroups of containers that still have tasks elsewhere."""
        alive = {task.container for pid, task in self._owners.items() if _is_it(pid, task)}
        for slot in self._containers():
            if slot.state & STATE_REMOVED and slot.cgroup in alive:
                alive.discard(slot.cgroup)
                yield slot.cgroup

    def condemned(self) -> Iterator[int]:
        """The ids of cgroups of condemned containers."""
        return (slot.cgroup for slot in self._containers() if slot.state & STATE_CONDEMNED)

    def _containers(self) -> Iterator[ContainerValue]:
        for table in self._slots:
            for _, value in table.items():
                yield ContainerValue._make(CONTAINER.unpack(value))

    def close(self) -> None:
        """All tasks are bound: close the maps."""
        for table in (*self._tables, *self._slots):
            table.close()
        self._tables, self._slots, self._owners = [], [], {}


def _is_it(pid: int, task: TaskValue) -> bool:
    """Returns True if the process with this pid is still that task."""
    return bool(task.container) and start_ticks(pid) == ticks_of(task.start_ns)


def _open(found: PinDirectory, name: str) -> Map | None:
    with suppress(OSError):
        left = found.open_map(name) if found.same_abi else None
        if left is not None and (left.key_size, left.value_size) == MAPS[name]:
            return left
        if left is not None:
            with closing(left):
                return None
    return None
