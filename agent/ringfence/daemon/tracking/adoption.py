# SPDX-License-Identifier: Apache-2.0
"""Adoption: enroll the containers that are already running, at the start and again after lost
records.

Cgroups are enrolled by name, their tasks are armed by the kernel's iterator, and runtimes are
asked to identify them.

A task that enters a container's cgroup is a runtime's at first, and is armed when it executes the
workload. `tick` looks whether it does: a task that stays without is armed as it is
(probes/include/unarmed.h).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import Metric

from ringfence import log
from ringfence.abi import UNARMED_ENTRANTS
from ringfence.bpf.kernel import AdoptionRound
from ringfence.bpf.writer import LENT
from ringfence.containers.adopt import Adopted, Adopter, pids_by_slot
from ringfence.containers.hierarchy import CgroupDir, Hierarchy, own_cgroups, own_lineage, walk
from ringfence.containers.model import Container, State
from ringfence.containers.patterns import matches, patterns_for
from ringfence.daemon.parts import Loaded, Node
from ringfence.daemon.tracking.containers import ContainerTracker
from ringfence.daemon.tracking.predecessor_tasks import PredecessorTasks
from ringfence.export import families

__all__ = ["Adoption", "path_of"]

_ROUNDS = 16  # runs of the iterator: tasks that fork before it reaches them are bound by the next run
_SETTLE_S, _PAUSE_S = 4.0, 0.1  # at the start: how long tasks may wait to be armed, and between two looks

_IDLE = 3  # ticks between two looks at tasks that may be preparing a container


class Adoption:
    """Call `take_in` in the loop, or before it runs."""

    def __init__(self, node: Node, loaded: Loaded, tracker: ContainerTracker) -> None:
        self._kernel, self._slots, self._tracker = loaded.kernel, loaded.slots, tracker
        self._registry, self._hierarchy = tracker.registry, node.hierarchy
        self._patterns = tuple(patterns_for(node.config.patterns, known=node.config.known_names))
        self.never = own_cgroups(node.hierarchy)  # cgroups that hold the agent are no containers
        self.predecessor = PredecessorTasks({LENT[name]: self._kernel.map(name) for name in LENT})
        owner_of = self.predecessor.owner_of
        self._adopter = Adopter(
            node.hierarchy, self._patterns, loaded.slots, self._registry, owner_of, self.never
        )
        self._last = AdoptionRound([])
        self._entered = self._idle = 0  # tasks that entered, and ticks without a look
        self._lacking = False
        self._log = log.get_logger("adoption")

    def exempt(self) -> None:
        """Before anything is attached: exempt the agent's own cgroups in the kernel's table."""
        lineage = own_lineage(self._hierarchy)
        named = [one for one in lineage if matches(one.path, self._patterns)]
        if lineage:
            self._slots.exempt([one.cgroup_id for one in named[:-1]], (named or lineage)[-1].cgroup_id)

    def begin(self) -> None:
        """Where nothing is adopted: the kernel notes since when it looks. What enters later is new."""
        self._last = self._kernel.adopt()

    def take_in(self) -> None:
        """Enroll every running container that is not known yet."""
        self.predecessor.refresh()
        for cgroup in self.predecessor.outlived():
            self._take_outlived(cgroup)
        self._complain(self._adopter.adopt())
        for cgroup in self.predecessor.condemned():
            self._slots.condemn(cgroup)
        self.arm()

    def settle(self) -> None:
        """At the start: wait until tasks that may be a runtime's have executed, or are armed."""
        until = time.monotonic() + _SETTLE_S
        while self._last.waiting and time.monotonic() < until:
            time.sleep(_PAUSE_S)
            if self._round():
                self.arm()

    def tick(self) -> None:
        """Arm tasks that entered a container and executed nothing. Called each second, in the
        loop.
        """
        entered = self._kernel.map("unarmed").get_int(UNARMED_ENTRANTS)
        last, self._idle = self._last, self._idle + 1
        soon = entered != self._entered or last.waiting or last.failed
        if soon or (last.entering and self._idle >= _IDLE):
            self._entered, self._idle = entered, 0
            if self._round():
                self.arm()
            self._report_memory()

    def samples(self) -> Iterator[Metric]:
        """Tasks in containers that are not armed."""
        last = self._last
        yield families.unarmed(
            {"left_root": last.waiting, "preparing": last.entering, "no_memory": last.failed}
        )

    def candidates(self) -> list[CgroupDir]:
        """Cgroups of containers that are not enrolled. From any thread."""
        return self._adopter.candidates()

    def take(self, found: Sequence[CgroupDir]) -> None:
        """Enroll these, which `candidates` found, and arm the tasks in them."""
        self._complain(self._adopter.take(found))
        self.arm()

    def arm(self) -> bool:
        """Bind every task that runs in a container. Returns False if new tasks kept appearing:
        call it again later.
        """
        settled = any(not self._round() for _ in range(_ROUNDS))
        if not settled:
            self._log.warning(
                "tasks are created faster than they are bound: trying again later", rounds=_ROUNDS
            )
        self._report_memory()
        pids = self.pids()
        self._adopter.armed(pids)
        self._tracker.adopted(pids)
        return settled

    def _round(self) -> bool:
        """Run the iterator once. Returns True if it bound a task."""
        self._last = self._kernel.adopt()
        return bool(self._last.bound)

    def pids(self) -> Mapping[int, Sequence[int]]:
        """The armed processes of every container, by its slot. From any thread."""
        return pids_by_slot(self._kernel.map("processes").items())

    def _take_outlived(self, cgroup: int) -> None:
        """Enroll a container of which only tasks that left its cgroup still run."""
        if self._slots.owner(cgroup) is not None or (slot := self._slots.take()) is None:
            return
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._slots.fill(slot, cgroup, now, removed=True)
        if not self._slots.bind(cgroup, slot):
            self._slots.put_back(slot)
            return
        gone = Container.unnamed(cgroup, slot, state=State.REMOVED, created_ns=now, adopted=True)
        self._registry.add(gone)

    def _report_memory(self) -> None:
        """Log when memory to bind tasks begins to lack, and when it does no more."""
        tasks = self._last.failed
        if bool(tasks) == self._lacking:
            return
        self._lacking = not self._lacking
        if tasks:
            self._log.error("no memory to bind tasks of containers: trying again each second", tasks=tasks)
        else:
            self._log.info("every task of a container is bound again")

    def _complain(self, done: Adopted) -> None:
        if done.refused:
            self._log.error("containers not enrolled: the table is full", containers=done.refused)
        if done.cut:
            self._log.error("too many cgroups to look at all: containers may be missed")


def path_of(hierarchy: Hierarchy, cgroup_id: int) -> str:
    """The path of a cgroup whose CREATE record was lost; empty: it is gone. Walks the whole
    hierarchy, so call it from the enrichment's thread only.
    """
    return next((found.path for found in walk(hierarchy) if found.cgroup_id == cgroup_id), "")
