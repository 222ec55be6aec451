# SPDX-License-Identifier: Apache-2.0
"""The container of each task under the earlier agent. A task that left its container's cgroup
still belongs to the container, also after a restart of the agent.

The kernel's iterator that adopts reads the earlier agents' pinned tables itself. They are as new as
the last fork, because the old programs still decide, and have every task, whatever the container's
share of the table of processes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress

from ringfence import log
from ringfence.abi import CONTAINER, MAPS, STATE_CONDEMNED, STATE_REMOVED, TASK, ContainerValue, TaskValue
from ringfence.bpf.maps import Map
from ringfence.bpf.pins import PinDirectory
from ringfence_linux.procfs import start_ticks, ticks_of

__all__ = ["PredecessorTasks"]


class PredecessorTasks:
    """Tasks of earlier agents. Tables of another shape are ignored; of another ABI, only bindings
    are read.
    """

    def __init__(self, lent: Mapping[str, Map]) -> None:
        """`lent`: the maps that get a table of earlier agents, for the iterator, by its name."""
        self._lent = lent
        self._tables: list[Map] = []
        self._slots: list[Map] = []
        self._owners: dict[int, TaskValue] = {}
        self._log = log.get_logger("adoption")

    def open(self, before: Iterable[PinDirectory]) -> None:
        """Open their maps. The newest takes precedence."""
        found = list(before)
        for name, outer in self._lent.items():
            for at, one in enumerate(found[::-1][: outer.max_entries]):
                self._lend(one, name, outer, at)
        for one in found:
            processes, slots = _open(one, "processes"), _open(one, "slots")
            if processes is None or slots is None:
                continue
            self._tables.append(processes)
            self._slots.append(slots)

    def _lend(self, found: PinDirectory, name: str, outer: Map, at: int) -> None:
        try:
            left = found.open_map(name)
            if left is not None:
                with closing(left):
                    outer.set(at, left.fd)
        except OSError as error:
            self._log.warning(
                "a table of an earlier agent cannot be read: its tasks are found by their cgroups alone",
                pins=found.name, table=name, error=str(error),
            )  # fmt: skip

    def refresh(self) -> None:
        """Read the armed tasks again."""
        for table in self._tables:
            for key, value in table.items():
                self._owners[int.from_bytes(key, sys.byteorder)] = TaskValue._make(TASK.unpack(value))

    def owner_of(self, pid: int) -> int:
        """The cgroup id of the container that this process belongs to; 0: none."""
        task = self._owners.get(pid)
        return task.container if task is not None and _is_it(pid, task) else 0

    def outlived(self) -> Iterator[int]:
        """The ids of removed cgroups of containers that still have tasks elsewhere."""
        alive = {task.container for pid, task in self._owners.items() if _is_it(pid, task)}
        for slot in self._containers():
            if slot.state & STATE_REMOVED and (slot.tasks > 0 or slot.cgroup in alive):
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
        for outer in self._lent.values():
            for at in range(outer.max_entries):
                outer.delete(at)
            outer.freeze()
        self._lent = {}
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
