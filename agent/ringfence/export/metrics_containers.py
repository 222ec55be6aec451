# SPDX-License-Identifier: Apache-2.0
"""Metrics of single containers: live ones only, and at most so many; the others are summed as `other`.

A container that has series of its own keeps them, and one that was summed stays summed: so every series
only grows while it is there, which `rate()` needs. What an ended container had counted stays in the sum.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

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


class ContainerMetrics:
    """Remembers between scrapes only who has series, and what the summed ones had counted."""

    def __init__(
        self,
        kernel: KernelLike,
        slots: Callable[[int], ContainerValue | None],
        containers: Callable[[], Sequence[Container]],
        limit: int,
    ) -> None:
        self._kernel, self._slots, self._containers, self._limit = kernel, slots, containers, limit
        self._own: set[int] = set()  # cgroup ids
        self._summed: dict[int, Counter[str]] = {}
        self._ended: Counter[str] = Counter()
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
        self._own &= live.keys()
        for cgroup in self._summed.keys() - live.keys():
            self._ended += self._summed.pop(cgroup)
        for cgroup in live:
            if cgroup not in self._own and cgroup not in self._summed:
                if len(self._own) < self._limit:
                    self._own.add(cgroup)
                else:
                    self._summed[cgroup] = Counter()

    def _families(self, live: dict[int, Container]) -> Iterator[Metric]:
        info = BulkFamily(
            "gauge", "ringfence_container_info", "What is known of a container; join on `container`.",
            ["container", "name", "image", "runtime", "namespace", "pod"],
        )  # fmt: skip
        activity = BulkFamily(
            "counter", "ringfence_container_activity", "What the tasks of a container did, by class.",
            ["container", "class"],
        )  # fmt: skip
        tasks = BulkFamily("gauge", "ringfence_container_armed_tasks", "Armed tasks alive.", ["container"])
        states: Counter[str] = Counter({"created": 0, "running": 0, "stopped": 0})
        all_tasks = other_tasks = 0
        for cgroup, container in live.items():
            states[str(container.state)] += 1
            slot = self._slot(container)
            alive = max(slot.tasks, 0) if slot else 0
            all_tasks += alive
            counts = self._counts(container.slot) if slot else Counter[str]()
            if cgroup not in self._own:
                if slot:  # else it just ended: what was counted last stays
                    self._summed[cgroup] = counts
                other_tasks += alive
                continue
            label = escape(container.short_id, 64)
            info.add_metric([label, *map(_label, _about(container))], 1)
            tasks.add_metric([label], alive)
            for name, count in counts.items():
                activity.add_metric([label, name], count)
        if self._summed or self._ended:
            tasks.add_metric([OTHER], other_tasks)
            for name, count in sum(self._summed.values(), self._ended).items():
                activity.add_metric([OTHER, name], count)
        yield from (info, activity, tasks, self._lost(live), *self._totals(states, all_tasks))

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
        owner = {live[cgroup].slot: live[cgroup] for cgroup in self._own}
        found: Counter[tuple[str, str]] = Counter()
        for lost, count in self._kernel.losses.by_slot().items():
            container = owner.get(lost.slot)
            if container is not None and self._slot(container):
                found[escape(container.short_id, 64), reason_label(lost.reason)] += count
        for labels, count in found.items():
            family.add_metric(labels, count)
        return family

    def _counts(self, slot: int) -> Counter[str]:
        sums = self._kernel.map("counters").sums(slot)
        return Counter({name: sums[index] for index, name in ACTIVITY_CLASSES.items() if sums[index]})


def _about(container: Container) -> tuple[str | None, ...]:
    return container.name, container.image, container.runtime, container.namespace, container.pod


def _label(text: str | None) -> str:
    return escape(text, _LABEL_LIMIT) if text else ""
