# SPDX-License-Identifier: Apache-2.0
"""The registry of containers that are alive or ended recently: cgroup id -> Container.

It is updated by the events of the `alerts` ring and queried for each event of both rings. It never guesses:
an event belongs to a container because the kernel recorded the container's cgroup id (never reused) in it.

Order: a container's records reach `activity` after its CONTAINER_CREATE went into `alerts`. So `alerts` is
read once more after `activity`, and all records are processed in the order of their times. If this order was
not kept, or the CREATE was lost, the kernel's table is read, which is authoritative; the name follows later.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ringfence.abi import (
    FLAG_ADOPTED,
    FLAG_TRUNCATED,
    STATE_ADOPTED,
    STATE_REMOVED,
    STATE_STARTED,
    ContainerValue,
    EventKind,
)
from ringfence.containers.model import Container, Enrichment, Facts, State
from ringfence.containers.posture import from_event, merge
from ringfence.containers.slots import SlotTable
from ringfence.events import ContainerEvent, Event

__all__ = ["Counts", "Registry", "restored"]

TOMBSTONE_NS = 30 * 10**9
TOMBSTONES = 1024


@dataclass(slots=True)
class Counts:
    """Counters for the metrics. `unattributed` by reason: see Registry.get."""

    created: int = 0
    started: int = 0
    removed: int = 0
    recovered: int = 0  # containers with a lost or late CREATE, found in the kernel's table
    evicted: int = 0  # tombstones dropped before they expired
    unattributed: dict[str, int] = field(
        default_factory=lambda: {"no-container": 0, "unknown": 0, "slot-reused": 0}
    )


class _Tombstone(NamedTuple):
    container: Container
    until_ns: int


class Registry:
    """All containers, by the id of their cgroup. Not thread-safe: the event loop owns it."""

    def __init__(
        self,
        slots: SlotTable,
        *,
        tombstones: int = TOMBSTONES,
        on_free: Callable[[Container, bool], None] = lambda container, owned: None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`on_free` is called with True before a slot is cleared, so that its counters can be read.

        It is called with False if the kernel already freed the slot, which may have a new owner.
        """
        self._slots = slots
        self._live: dict[int, Container] = {}
        self._tombstones: OrderedDict[int, _Tombstone] = OrderedDict()
        self._tombstones_max = tombstones
        self._on_free = on_free
        self._now_ns = now_ns
        self.counts = Counts()

    # -- questions -----------------------------------------------------------

    def get(self, slot: int, cgroup_id: int) -> Container | None:
        """Returns the container of an event's `slot` and `container`; counts an event without one.

        Reasons: no-container (the record names none), slot-reused (it ended before the oldest tombstone),
        unknown (it is not in the kernel's table).
        """
        found = self._live.get(cgroup_id)
        if found is not None:
            return found
        if (dead := self._tombstones.get(cgroup_id)) is not None:
            return dead.container
        return self._recover(slot, cgroup_id)

    def find(self, cgroup_id: int) -> Container | None:
        """Returns the living or dead container of that cgroup id, if remembered. Counts nothing."""
        dead = self._tombstones.get(cgroup_id)
        return self._live.get(cgroup_id) or (dead.container if dead else None)

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._live.values()))

    def workloads(self) -> list[Container]:
        """Returns the live containers without the agent's own canary: those that a user has."""
        return [container for container in self if not container.is_canary]

    def __len__(self) -> int:
        return len(self._live)

    @property
    def tombstones(self) -> int:
        """The number of dead containers that are remembered."""
        return len(self._tombstones)

    @property
    def capacity(self) -> tuple[int, int]:
        """The number of tombstones, and its maximum."""
        return len(self._tombstones), self._tombstones_max

    @property
    def unfreed(self) -> int:
        """The number of removed containers with a slot that tasks elsewhere still use."""
        return sum(container.state is State.REMOVED for container in self._live.values())

    # -- events --------------------------------------------------------------

    def on_event(self, event: Event) -> Container | None:
        """Processes an event; returns the container that changed, or None."""
        if not isinstance(event, ContainerEvent):
            return None
        match event.event:
            case EventKind.CONTAINER_CREATE:
                return self._create(event)
            case EventKind.CONTAINER_START:
                return self._start(event)
            case EventKind.CONTAINER_STOP:
                return self._stop(event)
            case EventKind.CONTAINER_REMOVE:
                return self._remove(event)
        return None

    def _create(self, event: ContainerEvent) -> Container:
        path = "" if event.flags & FLAG_TRUNCATED else os.fsdecode(event.path)
        known = self.find(event.container)
        if known is None:
            adopted = bool(event.flags & FLAG_ADOPTED)
            known = Container.unnamed(event.container, event.slot, created_ns=event.time_ns, adopted=adopted)
            self.counts.created += not known.at(path).is_canary
        return self._store(known.at(path))

    def _start(self, event: ContainerEvent) -> Container | None:
        known = self.get(event.slot, event.container)
        if known is None:
            return None
        self.counts.started += 1
        state = State.REMOVED if known.state is State.REMOVED else State.RUNNING
        posture = merge(from_event(event), known.posture)
        return self._store(
            replace(known, state=state, pid=event.pid, start_ns=event.start_ns, posture=posture)
        )

    def _stop(self, event: ContainerEvent) -> Container | None:
        known = self.get(event.slot, event.container)
        if known is None:
            return None
        if known.state is State.REMOVED:
            self._try_free(known)
            return known
        return self._store(replace(known, state=State.STOPPED))

    def _remove(self, event: ContainerEvent) -> Container | None:
        known = self.get(event.slot, event.container)
        if known is None or known.state is State.REMOVED:
            return known
        return self._removed(known)

    def _removed(self, container: Container) -> Container:
        self.counts.removed += not container.is_canary
        gone = self._store(replace(container, state=State.REMOVED))
        self._try_free(gone)
        return gone

    # -- facts from other sources --------------------------------------------

    def add(self, container: Container) -> Container:
        """Adds an adopted container; a known one keeps its facts."""
        known = self.find(container.cgroup_id)
        if known is not None:
            return self._store(known.at(container.cgroup_path))
        self.counts.created += 1
        return self._store(container)

    def enroll(self, container: Container, facts: Facts, name: str, chosen: tuple[str, ...]) -> Container:
        """Stores what a container's runtime reported about it before its start (an enrolment request)."""
        known = self.add(container)
        if known.enrichment is not Enrichment.PENDING and facts.enrichment is Enrichment.PENDING:
            facts = replace(facts, enrichment=known.enrichment)
        known = replace(known.enriched(facts), posture=merge(known.posture, facts.posture))
        return self._store(replace(known, id=name, enrolled_by_runtime=True, chosen=chosen))

    def apply(self, cgroup_id: int, facts: Facts) -> Container | None:
        """Adds the facts that enrichment found; returns None if the container is already forgotten."""
        known = self.find(cgroup_id)
        if known is None:
            return None
        posture = merge(known.posture, facts.posture)
        return self._store(replace(known.enriched(facts), posture=posture))

    def running(self, cgroup_id: int, pid: int) -> None:
        """Marks an adopted container with armed tasks as running; `pid` is one of its processes, or 0."""
        known = self._live.get(cgroup_id)
        if known is not None and known.state is State.CREATED:
            self.counts.started += 1
            self._store(replace(known, state=State.RUNNING, pid=known.pid or pid))

    def dropped(self, cgroup_id: int) -> None:
        """Records that the enrichment queue was full for this container."""
        if known := self.find(cgroup_id):
            self._store(replace(known, enrichment=Enrichment.DROPPED))

    def reconcile(self) -> tuple[int, int]:
        """Synchronises with the kernel's table after a lifecycle record was lost.

        Returns the numbers of containers added and removed.
        """
        found = gone = 0
        owners = {value.cgroup: (slot, value) for slot, value in list(self._slots.used())}
        for cgroup_id, (slot, value) in owners.items():
            if self.find(cgroup_id) is None:
                self.counts.created += 1
                self._store(restored(slot, value))
                found += 1
        for container in list(self._live.values()):
            if container.cgroup_id not in owners:
                self.counts.removed += container.state is not State.REMOVED
                self._try_free(replace(container, state=State.REMOVED))
                gone += 1
        return found, gone

    def sweep(self) -> int:
        """Frees slots of removed containers, including those with lost events, and expires tombstones.

        To be called every few seconds. Returns the number of slots freed.
        """
        freed = 0
        used = list(self._slots.used())
        owners = {value.cgroup for _, value in used}
        for container in [one for one in self._live.values() if one.cgroup_id not in owners]:
            # The kernel freed its slot while no agent signalled that it runs.
            self.counts.removed += container.state is not State.REMOVED
            self._try_free(container)
        for slot, value in used:
            if value.state & STATE_REMOVED:
                known = self._live.get(value.cgroup) or Container.unnamed(value.cgroup, slot)
                if known.state is not State.REMOVED:  # its REMOVE was lost
                    self.counts.removed += 1
                    known = self._store(replace(known, state=State.REMOVED))
                freed += self._try_free(known)
        now = self._now_ns()
        while self._tombstones:
            cgroup_id, oldest = next(iter(self._tombstones.items()))
            if oldest.until_ns > now:
                break
            del self._tombstones[cgroup_id]
        return freed

    # -- inside --------------------------------------------------------------

    def _store(self, container: Container) -> Container:
        dead = self._tombstones.get(container.cgroup_id)
        if dead is not None:
            self._tombstones[container.cgroup_id] = _Tombstone(container, dead.until_ns)
        else:
            self._live[container.cgroup_id] = container
        return container

    def _retire(self, container: Container) -> None:
        self._live.pop(container.cgroup_id, None)
        if container.cgroup_id in self._tombstones:
            return
        if len(self._tombstones) >= self._tombstones_max:
            self._tombstones.popitem(last=False)
            self.counts.evicted += 1
        self._tombstones[container.cgroup_id] = _Tombstone(container, self._now_ns() + TOMBSTONE_NS)

    def _try_free(self, container: Container) -> bool:
        """Frees the slot of a removed container, unless armed tasks that moved elsewhere still use it.

        Such a container stays among the live ones: the tasks still belong to it.
        """
        cgroup_id, slot = container.cgroup_id, container.slot
        value = self._slots.read(slot)
        owned = value is not None and value.cgroup == cgroup_id
        if value is not None and owned and (value.tasks > 0 or not value.state & STATE_REMOVED):
            return False
        self._on_free(container, owned)
        if owned:
            self._slots.free(slot, cgroup_id)
        self._retire(container)
        return owned

    def _recover(self, slot: int, cgroup_id: int) -> Container | None:
        if not cgroup_id:
            self.counts.unattributed["no-container"] += 1
            return None
        value = self._slots.read(slot)
        if value is None or value.cgroup != cgroup_id:
            self.counts.unattributed["slot-reused" if value and value.cgroup else "unknown"] += 1
            return None
        self.counts.recovered += 1
        self.counts.created += 1
        return self._store(restored(slot, value))


def restored(slot: int, value: ContainerValue) -> Container:
    """Returns a container with the facts in the kernel's table."""
    state = State.RUNNING if value.state & STATE_STARTED else State.CREATED
    adopted = bool(value.state & STATE_ADOPTED)
    return Container.unnamed(value.cgroup, slot, state=state, created_ns=value.created_ns, adopted=adopted)
