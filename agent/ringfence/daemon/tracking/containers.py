# SPDX-License-Identifier: Apache-2.0
"""Containers as they come and go: the registry, the answers of runtimes, and the policies that
apply to each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.core import Metric

from ringfence import log
from ringfence.abi import EventKind
from ringfence.bpf.losses import Losses
from ringfence.containers.enrich import Request, Worker
from ringfence.containers.model import Container, Enrichment, Facts
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.parts import Loaded, Picture
from ringfence.events import Event
from ringfence.export import families
from ringfence.policy.install import Generations

__all__ = ["ContainerTracker", "Identified", "SlotRelease"]

_START = int(EventKind.CONTAINER_START)
_CREATE = int(EventKind.CONTAINER_CREATE)


class Identified(NamedTuple):
    """A container about which a runtime answered, and the answer."""

    container: Container
    facts: Facts


class SlotRelease:
    """`freed` is called by the registry, before a slot is emptied."""

    def __init__(
        self,
        generations: Generations,
        losses: Losses,
        tree: ProcessTree,
        forget: Sequence[Callable[[Container], None]],
    ) -> None:
        """`forget`: parts that hold something about the container until then."""
        self._generations, self._losses, self._tree, self._forget = generations, losses, tree, forget

    def freed(self, container: Container, still_held: bool) -> None:
        """The next container in this slot must begin without policies and counts.

        `still_held` False: the kernel has reclaimed the slot, and another container may be in it
        already.
        """
        if still_held:
            self._generations.clear(container.slot)
            self._losses.retire(container.slot)
        for forget in self._forget:
            forget(container)
        # Not when the cgroup is removed: tasks that were moved out of it may live on.
        self._tree.forget(container.cgroup_id)


class ContainerTracker:
    """Used by the loop only."""

    def __init__(self, loaded: Loaded, picture: Picture, worker: Worker) -> None:
        self._generations, self._slots = loaded.generations, loaded.slots
        self.registry, self._tree, self._worker = picture.registry, picture.tree, worker
        self._log = log.get_logger("containers")
        self._enrichments: Counter[str] = Counter({str(result): 0 for result in Enrichment})

    def on_event(self, event: Event) -> Container | None:
        """Handle a CONTAINER_* or CGROUP_* event. Returns the container that it is about."""
        changed = self.registry.on_event(event)
        if changed is None:
            return self.registry.get(event.slot, event.container) if event.container else None
        # A runtime that is slow to write its state is asked again when the workload begins.
        unknown = event.event == _START and changed.enrichment in (Enrichment.NONE, Enrichment.FAILED)
        if unknown or (event.event in (_CREATE, _START) and not changed.settled):
            self._ask(changed)
        if event.event == _START and (changed.settled or changed.enrolled_by_runtime):
            self._assign(changed)
        return changed

    def answers(self) -> Iterator[Identified]:
        """The answers of runtimes. Policies are chosen again for each container that is known
        better now.
        """
        for answer in self._worker.answers():
            container = self.registry.apply(answer.cgroup_id, answer.facts)
            self._enrichments[str(answer.facts.enrichment)] += 1
            if container is not None:
                self._assign(container)
                yield Identified(container, answer.facts)

    def pods_changed(self, uids: frozenset[str]) -> None:
        """The API server reported changes of these pods: ask about their containers again."""
        for container in self.registry:
            if container.pod_uid in uids:
                self._ask(container)

    def enroll(
        self, container: Container, facts: Facts, name: str, chosen: tuple[str, ...]
    ) -> tuple[Container, frozenset[int]]:
        """Take what a container's own runtime reports before its start. Returns the container, and
        the policies (by index) that apply from now on.
        """
        known = self.registry.enroll(container, facts, name, chosen)
        if not known.settled:
            self._ask(known)
        return known, self._assign(known)

    def adopted(self, pids: Mapping[int, Sequence[int]]) -> None:
        """After the tasks are armed: seed the tree with their processes (by slot), and ask the
        runtimes.
        """
        for container in self.registry:
            self._tree.seed(pids.get(container.slot, ()), container.cgroup_id)
            if container.enrichment is Enrichment.PENDING:
                self._ask(container)

    def facts(self) -> Mapping[int, Container | None]:
        """Slot -> the facts by which policies are chosen; None while no runtime has answered."""
        return {c.slot: c if c.settled or c.enrolled_by_runtime else None for c in self.registry}

    def sweep(self) -> None:
        """Free the slots that can be freed. Called by a timer."""
        self.registry.sweep()

    def samples(self) -> Iterator[Metric]:
        """Containers, processes, and the requests to runtimes."""
        counts, registry, tree, slots = self.registry.counts, self.registry, self._tree, self._slots
        moves = {"created": counts.created, "started": counts.started, "removed": counts.removed}
        yield families.counters(
            "ringfence_container_transitions", "Containers created, started and removed.", "to", moves
        )
        yield families.counters(
            "ringfence_enrichments", "Requests to identify a container, by result.", "result",
            self._enrichments,
        )  # fmt: skip
        yield families.enrichment_errors(self._worker.counts.errors)
        yield from families.capacity("containers", (slots.size - slots.unused, slots.size))
        yield from families.capacity("processes", tree.capacity)
        yield from families.capacity("ended_processes", tree.capacity_of_dead)
        yield from families.capacity("ended_containers", registry.capacity)
        yield from families.capacity("enrichments", self._worker.capacity)
        yield families.evicted("containers", slots.full)
        yield families.evicted("processes", tree.evicted)
        yield families.evicted("ended_containers", counts.evicted)

    def _ask(self, container: Container) -> None:
        if not self._worker.submit(Request.of(container)):
            self.registry.dropped(container.cgroup_id)
            self._enrichments[str(Enrichment.DROPPED)] += 1

    def _assign(self, container: Container) -> frozenset[int]:
        # While an answer is awaited, the policies of the start stay: there is no moment without
        # policies.
        known = container if container.settled or container.enrolled_by_runtime else None
        return self._generations.assign(container.slot, container.cgroup_id, known)
