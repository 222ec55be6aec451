# SPDX-License-Identifier: Apache-2.0
"""Adopts running containers: enrols their cgroups. The kernel's iterator then arms the tasks.

This is safe if the kernel enrols at the same time, because of the order:

1. The agent attaches the cgroup_mkdir program *before* it scans. The kernel runs that program before it
   makes the new directory visible (cgroup_mkdir: the tracepoint, then kernfs_activate). So a directory that
   the scan sees was either enrolled by the kernel already (it is in `containers` and skipped here), or it
   never will be.
2. Slots come from the stack that the kernel uses, too, so each is taken once. The slot is written before its
   number is published in `containers`, with BPF_NOEXIST: the second publisher puts its slot back.
3. A directory that vanished between listing and binding is unbound again: its rmdir may have been too early
   for the kernel to see a container in it.
4. Only then are tasks armed (Kernel.adopt()). A task that execs meanwhile is armed by the kernel itself.

Cgroups below a container's are not examined: the kernel finds them by their ancestors, and there may be any
number of them. Cgroups with a container's name but no task of their own come last and use at most half of
the slots, because a process that can write the host's cgroups could create thousands. The kernel enrols such
a cgroup when a task starts to run in it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.abi import STATE_STARTED, TASK, TaskValue
from ringfence.config.values import Pattern
from ringfence.containers.hierarchy import CgroupDir, Hierarchy, cgroup_id, walk
from ringfence.containers.model import Container, State
from ringfence.containers.patterns import matches
from ringfence.containers.registry import Registry, restored
from ringfence.containers.slots import SlotTable

__all__ = ["Adopted", "Adopter", "pids_by_slot"]

_EXAMINED_MAX = 256  # directories below a cgroup that are searched for a task


def pids_by_slot(processes: Iterable[tuple[bytes, bytes]]) -> dict[int, list[int]]:
    """Returns the armed processes of all containers, from the kernel's table: slot -> PIDs."""
    found: dict[int, list[int]] = {}
    for key, value in processes:
        task = TaskValue._make(TASK.unpack(value))
        found.setdefault(task.slot, []).append(int.from_bytes(key, sys.byteorder))
    return found


@dataclass(slots=True)
class Adopted:
    """The result of an adoption.

    `refused`: containers without a free slot; `cut`: there are more cgroups than are examined.
    """

    containers: int = 0
    refused: int = 0
    cut: bool = False


class Adopter:
    """Finds containers by the names of their cgroups and enrols them through the maps."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        patterns: Sequence[Pattern],
        slots: SlotTable,
        registry: Registry,
        owner_of: Callable[[int], int] = lambda pid: 0,
        never: frozenset[int] = frozenset(),
    ) -> None:
        """`owner_of`: the cgroup id of the container to which a process already belongs; 0: none.

        `never`: ids of cgroups that contain the agent and so are never containers, regardless of their names.
        """
        self._hierarchy, self._patterns = hierarchy, tuple(patterns)
        self._slots, self._registry, self._never = slots, registry, never
        self._owner_of = owner_of

    def adopt(self, *, passes: int = 2) -> Adopted:
        """Enrols every existing container that is not enrolled yet; may be called again at any time."""
        done = Adopted()
        for _ in range(passes):
            self._pass(done)
        return done

    def _pass(self, done: Adopted) -> None:
        found: set[int] = set()  # cgroups of containers
        idle: list[CgroupDir] = []

        def cut() -> None:
            done.cut = True

        for directory in walk(self._hierarchy, descend=lambda one: one.cgroup_id not in found, cut=cut):
            if self._visit(directory, done, idle):
                found.add(directory.cgroup_id)
        for directory in idle:
            if self._slots.unused > self._slots.size // 2:
                self._bind(directory, done)

    def candidates(self) -> list[CgroupDir]:
        """Returns the cgroups of containers that are not enrolled. From any thread."""
        named: list[CgroupDir] = []

        def outside(one: CgroupDir) -> bool:
            return not (named and named[-1] is one) and self._slots.owner(one.cgroup_id) is None

        for directory in walk(self._hierarchy, descend=outside):
            if matches(directory.path, self._patterns) and self._slots.owner(directory.cgroup_id) is None:
                named.append(directory)
        return named

    def take(self, found: Iterable[CgroupDir]) -> Adopted:
        """Enrols these cgroups."""
        done = Adopted()
        for directory in found:
            self._visit(directory, done, [])
        return done

    def _visit(self, directory: CgroupDir, done: Adopted, idle: list[CgroupDir]) -> bool:
        """Enrols a cgroup. Returns True if it is or will be a container: cgroups below it are skipped."""
        if directory.cgroup_id in self._never:
            return False
        slot = self._slots.owner(directory.cgroup_id)
        if slot is not None:
            self._remember(directory, slot)
            return True
        if not matches(directory.path, self._patterns):
            return False
        if not self._is_inhabited(directory):
            idle.append(directory)
            return True
        return self._bind(directory, done)

    def _bind(self, directory: CgroupDir, done: Adopted) -> bool:
        slot = self._slots.take()
        if slot is None:
            done.refused += 1
            return True
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._slots.fill(slot, directory.cgroup_id, now)
        if not self._slots.bind(directory.cgroup_id, slot):
            self._slots.put_back(slot)
            done.refused += self._slots.owner(directory.cgroup_id) is None
            return True
        if not self._still_exists(directory):
            self._slots.free(slot, directory.cgroup_id)
            return False
        done.containers += 1
        container = Container.unnamed(directory.cgroup_id, slot, created_ns=now, adopted=True)
        self._registry.add(container.at(directory.path))
        return True

    def _is_inhabited(self, directory: CgroupDir) -> bool:
        """Returns True if a process runs in it that belongs to no other container."""
        base = os.fspath(self._hierarchy.directory(directory.path))
        for number, (path, _, _) in enumerate(os.walk(base)):
            try:
                pids = Path(path, "cgroup.procs").read_text(encoding="ascii").split()
            except OSError:  # a threaded cgroup of v2
                return True
            if number >= _EXAMINED_MAX or any(
                self._owner_of(int(pid)) in (0, directory.cgroup_id) for pid in pids
            ):
                return True
        return False

    def _remember(self, directory: CgroupDir, slot: int) -> None:
        """Adds a container that the kernel or an earlier agent enrolled, which the registry may not know."""
        if self._registry.find(directory.cgroup_id) is not None:
            self._registry.add(Container.unnamed(directory.cgroup_id, slot).at(directory.path))
            return
        value = self._slots.read(slot)
        if value is not None and value.cgroup == directory.cgroup_id:
            self._registry.add(restored(slot, value).at(directory.path))

    def _still_exists(self, directory: CgroupDir) -> bool:
        try:
            return cgroup_id(self._hierarchy.directory(directory.path)) == directory.cgroup_id
        except OSError:
            return False

    def armed(self, pids: Mapping[int, Sequence[int]]) -> int:
        """After Kernel.adopt(): marks containers with armed tasks as running; `pids` are processes by slot.

        Returns the number of running containers.
        """
        running = 0
        for container in self._registry:
            value = self._slots.read(container.slot)
            if value is None or value.cgroup != container.cgroup_id or value.tasks <= 0:
                continue
            running += 1
            if container.state is State.CREATED and value.state & STATE_STARTED:
                self._registry.running(container.cgroup_id, min(pids.get(container.slot, ()), default=0))
        return running
