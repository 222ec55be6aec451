# SPDX-License-Identifier: Apache-2.0
"""Containers as they come and go: the registry, what runtimes say about them, and which policies apply to
each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ringfence import log
from ringfence.abi import EventKind
from ringfence.bpf.losses import Losses
from ringfence.containers.enrich import Request, Worker
from ringfence.containers.model import Container, Enrichment, Facts
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.events import Event
from ringfence.policy.install import Generations

__all__ = ["ContainerTracker"]

_START = int(EventKind.CONTAINER_START)
_CREATE = int(EventKind.CONTAINER_CREATE)


class ContainerTracker:
    """Called by the loop only."""

    def __init__(
        self,
        registry: Registry,
        tree: ProcessTree,
        worker: Worker,
        generations: Generations,
        losses: Losses,
    ) -> None:
        self.registry, self.tree = registry, tree
        self._worker, self._generations, self._losses = worker, generations, losses
        self._log = log.get_logger("containers")
        self.on_known: Callable[[Container, Facts], None] = lambda container, facts: None
        self.on_gone: Callable[[Container], None] = lambda container: None
        self.enrichments: Counter[str] = Counter({str(result): 0 for result in Enrichment})

    def on_event(self, event: Event) -> Container | None:
        """Take a CONTAINER_* or CGROUP_* event; the container that it is about."""
        changed = self.registry.on_event(event)
        if changed is None:
            return self.registry.get(event.slot, event.container) if event.container else None
        # A runtime that is slow to write its state is asked again when the workload begins.
        unknown = event.event == _START and changed.enrichment in (Enrichment.NONE, Enrichment.FAILED)
        if unknown or (event.event in (_CREATE, _START) and not changed.settled):
            self._ask(changed)
        if event.event == _START and (changed.settled or changed.told):
            self._assign(changed)
        return changed

    def on_answers(self) -> None:
        """Take what the runtimes said; policies are chosen anew for each container that is known better
        now."""
        for answer in self._worker.answers():
            container = self.registry.apply(answer.cgroup_id, answer.facts)
            self.enrichments[str(answer.facts.enrichment)] += 1
            if container is not None:
                self._assign(container)
                self.on_known(container, answer.facts)

    def pods_changed(self, uids: frozenset[str]) -> None:
        """The API server knows more of these pods, or something else: their containers are asked for anew."""
        for container in self.registry:
            if container.pod_uid in uids:
                self._ask(container)

    def enrol(
        self, container: Container, facts: Facts, name: str, chosen: tuple[str, ...]
    ) -> tuple[Container, frozenset[int]]:
        """What a container's own runtime says before its start; the policies (by index) that hold from now
        on."""
        known = self.registry.told(container, facts, name, chosen)
        if not known.settled:
            self._ask(known)
        return known, self._assign(known)

    def adopted(self, pids: Mapping[int, Sequence[int]]) -> None:
        """After the tasks are armed: their processes (by slot), and who they are."""
        for container in self.registry:
            self.tree.seed(pids.get(container.slot, ()), container.cgroup_id)
            if container.enrichment is Enrichment.PENDING:
                self._ask(container)

    def facts(self) -> Mapping[int, Container | None]:
        """Slot -> what policies may be chosen by; None while nobody has answered."""
        return {c.slot: c if c.settled or c.told else None for c in self.registry}

    def sweep(self) -> None:
        """Give back what can be given back; called by a timer."""
        self.registry.sweep()

    def slot_freed(self, container: Container, *, ours: bool = True) -> None:
        """A slot is about to be empty: the next container in it begins as one of which nothing is known."""
        if ours:
            self._generations.clear(container.slot)
            self._losses.retire(container.slot)
        self.on_gone(container)
        # Not at its removal: tasks that were moved out of its cgroup may outlive that.
        self.tree.forget(container.cgroup_id)

    def _ask(self, container: Container) -> None:
        if not self._worker.submit(Request.of(container)):
            self.registry.dropped(container.cgroup_id)
            self.enrichments[str(Enrichment.DROPPED)] += 1

    def _assign(self, container: Container) -> frozenset[int]:
        # While an answer is still to come, what holds at birth goes on holding: there is no moment without.
        known = container if container.settled or container.told else None
        return self._generations.assign(container.slot, known)
