# SPDX-License-Identifier: Apache-2.0
"""Adoption: take in the containers that are already running, at the start and again after lost records.

Cgroups are enrolled by name, their tasks are armed by the kernel's iterator, and runtimes are asked who they
are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ringfence import log
from ringfence.bpf.kernel import Kernel
from ringfence.config.values import Pattern
from ringfence.containers.adopt import Adopted, Adopter, pids_by_slot
from ringfence.containers.hierarchy import CgroupDir, Hierarchy, own_cgroups, own_lineage
from ringfence.containers.model import Container, State
from ringfence.containers.patterns import matches
from ringfence.containers.registry import Registry
from ringfence.containers.slots import SlotTable
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.daemon.tracking.predecessor_tasks import PredecessorTasks

__all__ = ["Adoption"]

_ROUNDS = 16  # of the iterator: tasks that fork before it comes to them are bound by the next round


class Adoption:
    """Call `take_in` in the loop, or before it runs."""

    def __init__(
        self,
        kernel: Kernel,
        hierarchy: Hierarchy,
        patterns: Sequence[Pattern],
        slots: SlotTable,
        registry: Registry,
        tracker: ContainerTracker,
    ) -> None:
        self._kernel, self._tracker = kernel, tracker
        self.never = own_cgroups(hierarchy)  # what holds the agent is no container
        self._slots, self._registry = slots, registry
        self._hierarchy, self._patterns = hierarchy, tuple(patterns)
        self.predecessor = PredecessorTasks()
        owner_of = self.predecessor.owner_of
        self._adopter = Adopter(hierarchy, patterns, slots, registry, owner_of, self.never)
        self._log = log.get_logger("adoption")

    def exempt(self) -> None:
        """Before anything is attached: tell the kernel that the agent's own cgroups are no containers."""
        lineage = own_lineage(self._hierarchy)
        named = [one for one in lineage if matches(one.path, self._patterns)]
        if lineage:
            self._slots.exempt([one.cgroup_id for one in named[:-1]], (named or lineage)[-1].cgroup_id)

    def take_in(self) -> None:
        """Everything that runs in a container and is not known yet."""
        self.predecessor.refresh()
        for cgroup in self.predecessor.outlived():
            self._take_outlived(cgroup)
        self._told(self._adopter.adopt())
        self.arm()

    def candidates(self) -> list[CgroupDir]:
        """Containers that are not enrolled. From any thread."""
        return self._adopter.candidates()

    def take(self, found: Sequence[CgroupDir]) -> None:
        """Enroll these, of `candidates`, and arm what runs in them."""
        self._told(self._adopter.take(found))
        self.arm()

    def arm(self) -> bool:
        """Bind every task that runs in a container; False: there was no end of them, and it is to be done
        again."""
        settled = any(not self._round() for _ in range(_ROUNDS))
        if not settled:
            self._log.warning("tasks are made faster than they are bound: once more later", rounds=_ROUNDS)
        pids = self.pids()
        self._adopter.armed(pids)
        self._tracker.adopted(pids)
        return settled

    def _round(self) -> bool:
        """Whether somebody was bound."""
        self.predecessor.refresh()
        self.predecessor.carry(self._kernel.map("carried"))
        return bool(self._kernel.adopt())

    def pids(self) -> Mapping[int, Sequence[int]]:
        """The armed processes of every container, by its slot. From any thread."""
        return pids_by_slot(self._kernel.map("processes").items())

    def _take_outlived(self, cgroup: int) -> None:
        """A container that is no more than the tasks that left its cgroup."""
        if self._slots.owner(cgroup) is not None or (slot := self._slots.take()) is None:
            return
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._slots.fill(slot, cgroup, now, removed=True)
        if not self._slots.bind(cgroup, slot):
            self._slots.put_back(slot)
            return
        gone = Container.unnamed(cgroup, slot, state=State.REMOVED, created_ns=now, adopted=True)
        self._registry.add(gone)

    def _told(self, done: Adopted) -> None:
        if done.refused:
            self._log.error("containers not enrolled: the table is full", containers=done.refused)
        if done.cut:
            self._log.error("there are more cgroups than are looked at: containers may be missed")
