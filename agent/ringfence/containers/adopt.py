# SPDX-License-Identifier: Apache-2.0
"""Take in the containers that run already: enroll their cgroups; the kernel's iterator then arms their tasks.

Safe against the kernel enrolling at the same moment, in this order:

1. The agent attaches the cgroup_mkdir program *before* it scans. The kernel runs that program before it
   makes the new directory visible (cgroup_mkdir: the tracepoint, then kernfs_activate), so a directory that
   the scan sees was either enrolled by the kernel already (it is in `containers`: skipped here), or it
   never will be.
2. Slots come from the same stack that the kernel takes from: nobody gets one twice. The slot is written
   before its number is published in `containers`, and published with BPF_NOEXIST: who comes second puts the
   slot back.
3. A container is bound before its children are listed, so a child made later is enrolled by the kernel, a
   child made earlier is listed. One that falls between both (its tracepoint ran before, it became visible
   after) is found by the second pass.
4. A directory that vanished between listing and binding is unbound again: its rmdir may have come too early
   for the kernel to see a container in it.
5. Only then are tasks armed (Kernel.adopt()). A task that execs meanwhile is armed by the kernel itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.abi import STATE_STARTED
from ringfence.config_values import Pattern
from ringfence.containers.hierarchy import CgroupDir, Hierarchy, cgroup_id, walk
from ringfence.containers.model import Container, State
from ringfence.containers.patterns import matches
from ringfence.containers.registry import Registry, restored
from ringfence.containers.slots import SlotTable

__all__ = ["Adopted", "Adopter"]


@dataclass(slots=True)
class Adopted:
    """What one adoption did. `refused`: containers that found no free slot."""

    containers: int = 0
    children: int = 0
    refused: int = 0


class Adopter:
    """Finds containers by the names of their cgroups and enrolls them through the maps."""

    def __init__(
        self,
        hierarchy: Hierarchy,
        patterns: Sequence[Pattern],
        slots: SlotTable,
        registry: Registry,
        never: frozenset[int] = frozenset(),
    ) -> None:
        """`never`: ids of cgroups that are no containers, whatever their names: those that hold the agent."""
        self._hierarchy, self._patterns = hierarchy, tuple(patterns)
        self._slots, self._registry, self._never = slots, registry, never

    def adopt(self, *, passes: int = 2) -> Adopted:
        """Enroll every container that is there and not enrolled yet; may be called again at any time."""
        done = Adopted()
        for _ in range(passes):
            bound: dict[int, int] = {}  # cgroup id -> slot, of this pass: parents come first
            for directory in walk(self._hierarchy):
                self._visit(directory, bound, done)
        return done

    def _visit(self, directory: CgroupDir, bound: dict[int, int], done: Adopted) -> None:
        if directory.cgroup_id in self._never:
            return
        slot = self._slots.owner(directory.cgroup_id)
        if slot is None and (parent := bound.get(directory.parent_id)) is not None:
            slot = self._bind_child(directory, parent, done)
        elif slot is None and matches(directory.name, self._patterns):
            slot = self._bind_container(directory, done)
        elif slot is not None:
            self._remember(directory, slot)
        if slot is not None:
            bound[directory.cgroup_id] = slot

    def _bind_child(self, directory: CgroupDir, slot: int, done: Adopted) -> int | None:
        if self._slots.bind(directory.cgroup_id, slot):
            if not self._still_there(directory):
                self._slots.unbind([directory.cgroup_id])
                return None
            done.children += 1
        return slot

    def _bind_container(self, directory: CgroupDir, done: Adopted) -> int | None:
        slot = self._slots.take()
        if slot is None:
            done.refused += 1
            return None
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._slots.fill(slot, directory.cgroup_id, now)
        if not self._slots.bind(directory.cgroup_id, slot):
            self._slots.free(slot)
            return self._slots.owner(directory.cgroup_id)
        if not self._still_there(directory):
            self._slots.unbind([directory.cgroup_id])
            self._slots.free(slot)
            return None
        done.containers += 1
        container = Container.unnamed(directory.cgroup_id, slot, created_ns=now, adopted=True)
        self._registry.add(container.at(directory.path))
        return slot

    def _remember(self, directory: CgroupDir, slot: int) -> None:
        """A container that the kernel (or an earlier agent) enrolled: the registry may not know it yet."""
        if self._registry.find(directory.cgroup_id) is not None:
            self._registry.add(Container.unnamed(directory.cgroup_id, slot).at(directory.path))
            return
        value = self._slots.read(slot)
        if value is not None and value.cgroup == directory.cgroup_id:
            self._registry.add(restored(slot, value).at(directory.path))

    def _still_there(self, directory: CgroupDir) -> bool:
        try:
            return cgroup_id(self._hierarchy.directory(directory.path)) == directory.cgroup_id
        except OSError:
            return False

    def armed(self) -> int:
        """After Kernel.adopt(): containers whose tasks were armed are running; note one process of each.

        Returns how many run.
        """
        running = 0
        for container in self._registry:
            value = self._slots.read(container.slot)
            if value is None or value.cgroup != container.cgroup_id or value.tasks <= 0:
                continue
            running += 1
            if container.state is State.CREATED and value.state & STATE_STARTED:
                self._registry.running(container.cgroup_id, self.first_pid(container))
        return running

    def first_pid(self, container: Container) -> int:
        """The lowest PID in the container's cgroup, 0 when it is empty."""
        return min(self.pids(container), default=0)

    def pids(self, container: Container, *, limit: int = 4096) -> list[int]:
        """Processes in the container's cgroup and below it; at most `limit`. No other cgroup is read."""
        found: list[int] = []
        if not container.cgroup_path:
            return found
        base = os.fspath(self._hierarchy.directory(container.cgroup_path))
        for directory, _, _ in os.walk(base):
            try:
                with open(os.path.join(directory, "cgroup.procs"), encoding="ascii") as procs:
                    found.extend(int(line) for line in procs if line.strip().isdigit())
            except OSError:  # gone, or a threaded cgroup of v2
                continue
            if len(found) >= limit:
                break
        return found[:limit]
