# SPDX-License-Identifier: Apache-2.0
"""Metrics per container: for live ones only, and up to a limit; the rest are summed as `other`.

A container that has series of its own keeps them, and one that is summed stays summed: so every series only
grows while it exists, which `rate()` needs. Counts of ended containers stay in the sum. One whose name
another one's series have (`containers.patterns`, in two parents) is summed, too: a series must be there once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import lt

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ringfence.abi import ContainerValue
from ringfence.abi import Counter as Class
from ringfence.containers.model import Container
from ringfence.export.escape import escape
from ringfence.export.exposition import BulkFamily
from ringfence.export.metrics_kernel import KernelLike, reason_label

__all__ = ["ACTIVITY_CLASSES", "OTHER", "ContainerMetrics"]

OTHER = "other"
ACTIVITY_CLASSES = {int(counter): counter.label for counter in Class if counter}
_LABEL_LIMIT = 128
Counts = tuple[int, ...]  # by number of the class


class _Families:
    """Those of one scrape that have series for each container."""

    def __init__(self) -> None:
        self.info = BulkFamily(
            "gauge", "ringfence_container_info", "What is known of a container; join on `container`.",
            ["container", "name", "image", "runtime", "namespace", "pod"],
        )  # fmt: skip
        self.activity = BulkFamily(
            "counter", "ringfence_container_activity", "What the tasks of a container did, by class.",
            ["container", "class"],
        )  # fmt: skip
        self.tasks = BulkFamily(
            "gauge", "ringfence_container_armed_tasks", "Armed tasks alive.", ["container"]
        )


class _Series:
    """The lines of one container, as far as they stay the same from scrape to scrape."""

    __slots__ = ("_about", "_activity", "_info", "_tasks", "block", "container", "counts", "label")

    def __init__(self, container: Container, families: _Families) -> None:
        self.container = container
        self.label = escape(container.short_id, 64)
        self._about = [self.label, *map(_label, _about(container))]
        self._info = f"{families.info.prefix(self._about)}1\n"
        self._tasks = families.tasks.prefix([self.label])
        self._activity = [
            (index, families.activity.prefix([self.label, name])) for index, name in ACTIVITY_CLASSES.items()
        ]
        self.counts: Counts = ()
        self.block = ""

    def add_to(self, families: _Families, counts: Counts, alive: int) -> None:
        """Its lines; those of counts that did not change are those of the last time."""
        counts = _grown(self.counts, counts)
        if counts != self.counts:
            lines = [f"{prefix}{counts[index]}\n" for index, prefix in self._activity if counts[index]]
            self.counts, self.block = counts, "".join(lines)
        families.info.add_block(self._info, lambda: [(self._about, 1)])
        families.tasks.add_block(f"{self._tasks}{alive}\n", lambda: [([self.label], alive)])
        families.activity.add_block(
            self.block,
            lambda: [
                ([self.label, name], counts[n])
                for n, name in ACTIVITY_CLASSES.items()
                if counts and counts[n]
            ],
        )


class ContainerMetrics:
    """Remembers between scrapes who has series and what they looked like, and what the summed ones had
    counted."""

    def __init__(
        self,
        kernel: KernelLike,
        slots: Callable[[int], ContainerValue | None],
        containers: Callable[[], Sequence[Container]],
        limit: int,
    ) -> None:
        self._kernel, self._slots, self._containers, self._limit = kernel, slots, containers, limit
        self._own: dict[int, _Series | None] = {}  # by cgroup id
        self._summed: dict[int, Counts] = {}
        self._ended: Counts = ()
        self._lock = threading.Lock()  # two scrapes at once

    def own(self) -> list[Container]:
        """Those with series of their own, as of the last scrape."""
        with self._lock:
            return [container for container in self._containers() if container.cgroup_id in self._own]

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape."""
        with self._lock:
            live = {container.cgroup_id: container for container in self._containers()}
            self._assign(live)
            yield from self._families(live)

    def _assign(self, live: dict[int, Container]) -> None:
        for cgroup in self._own.keys() - live.keys():
            del self._own[cgroup]
        for cgroup in self._summed.keys() - live.keys():
            self._ended = _add(self._ended, self._summed.pop(cgroup))
        taken = {live[cgroup].short_id for cgroup in self._own}
        for cgroup, container in live.items():
            if cgroup not in self._own and cgroup not in self._summed:
                if len(self._own) < self._limit and container.short_id not in taken:
                    self._own[cgroup] = None
                    taken.add(container.short_id)
                else:
                    self._summed[cgroup] = ()

    def _families(self, live: dict[int, Container]) -> Iterator[Metric]:
        families = _Families()
        states: Counter[str] = Counter({"created": 0, "running": 0, "stopped": 0})
        slots = {cgroup: self._slot(container) for cgroup, container in live.items()}
        counts = self._kernel.map("counters").sums_of(
            [live[cgroup].slot for cgroup, slot in slots.items() if slot]
        )
        all_tasks = other_tasks = 0
        for cgroup, container in live.items():
            states[str(container.state)] += 1
            slot = slots[cgroup]
            alive = max(slot.tasks, 0) if slot else 0
            all_tasks += alive
            counted = counts[container.slot] if slot else ()
            if cgroup in self._own:
                self._series(container, families).add_to(families, counted, alive)
                continue
            if slot:  # else it just ended: what was counted last stays
                self._summed[cgroup] = _grown(self._summed[cgroup], counted)
            other_tasks += alive
        if self._summed or self._ended:
            families.tasks.add_metric([OTHER], other_tasks)
            whole = self._ended
            for counted in self._summed.values():
                whole = _add(whole, counted)
            for index, name in ACTIVITY_CLASSES.items():
                if whole and whole[index]:
                    families.activity.add_metric([OTHER, name], whole[index])
        yield from (families.info, families.activity, families.tasks, self._lost(live))
        yield from self._totals(states, all_tasks)

    def _series(self, container: Container, families: _Families) -> _Series:
        known = self._own[container.cgroup_id]
        if known is None or known.container is not container:  # more is known of it, say
            known = self._own[container.cgroup_id] = _Series(container, families)
        return known

    def _totals(self, states: Counter[str], all_tasks: int) -> Iterator[Metric]:
        containers = GaugeMetricFamily("ringfence_containers", "Containers, by state.", labels=["state"])
        for state, count in states.items():
            containers.add_metric([state], count)
        yield containers
        armed = GaugeMetricFamily("ringfence_armed_tasks", "Armed tasks alive, of all containers.")
        armed.add_metric([], all_tasks)
        yield armed
        summed = GaugeMetricFamily("ringfence_containers_summed", "Live containers that are part of `other`.")
        summed.add_metric([], len(self._summed))
        yield summed

    def _slot(self, container: Container) -> ContainerValue | None:
        value = self._slots(container.slot)
        return value if value and value.cgroup == container.cgroup_id else None

    def _lost(self, live: dict[int, Container]) -> Metric:
        family = CounterMetricFamily(
            "ringfence_container_events_dropped", "Records of a container that did not leave the kernel.",
            labels=["container", "reason"],
        )  # fmt: skip
        found: Counter[tuple[str, str]] = Counter()
        lost_by_slot = self._kernel.losses.by_slot()
        owner = {live[cgroup].slot: live[cgroup] for cgroup in self._own} if lost_by_slot else {}
        for lost, count in lost_by_slot.items():
            container = owner.get(lost.slot)
            if container is not None and self._slot(container):
                found[escape(container.short_id, 64), reason_label(lost.reason)] += count
        for labels, count in found.items():
            family.add_metric(labels, count)
        return family


def _add(one: Counts, other: Counts) -> Counts:
    """Sums; what has counted nothing is empty."""
    return tuple(map(sum, zip(one, other, strict=True))) if one and other else one or other


def _grown(before: Counts, now: Counts) -> Counts:
    """What is counted now; what was, where a slot was emptied after its owner was read."""
    return before if any(map(lt, now, before)) else now


def _about(container: Container) -> tuple[str | None, ...]:
    return container.name, container.image, container.runtime, container.namespace, container.pod


def _label(text: str | None) -> str:
    return escape(text, _LABEL_LIMIT) if text else ""
