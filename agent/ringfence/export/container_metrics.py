# SPDX-License-Identifier: Apache-2.0
"""Metrics per container: for live ones only, and up to a limit; the rest are summed as `other`.

A container that has series of its own keeps them, and one that is summed stays summed: so every
series only grows while it exists, which `rate()` needs. Counts of ended containers stay in the
sum. If two containers have the same name (`containers.patterns`, in two parents), the second is
summed: a series must be unique.

Pressure stall information exists in cgroup v2 only (psi.rst); throttling is in cpu.stat of v2 and
of v1. What a host does not have has no series.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import lt
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ringfence.abi import ContainerValue
from ringfence.abi import Counter as Class
from ringfence.containers.model import Container
from ringfence.export.escape import escape
from ringfence.export.exposition import BulkFamily
from ringfence.export.families import gauge, reason_label

if TYPE_CHECKING:
    from ringfence.bpf.kernel import Kernel

__all__ = ["ACTIVITY_CLASSES", "OTHER", "ContainerMetrics", "PressureMetrics"]

OTHER = "other"
ACTIVITY_CLASSES = {int(counter): counter.label for counter in Class if counter}
_LABEL_LIMIT = 128
_RESOURCES = ("cpu", "memory", "io")
_FILES = 256  # that may stay open
_FILE_MAX = 4096  # of these files, which the kernel writes in one piece
_STALL = re.compile(rb"^(some|full) .*total=(\d+)$", re.M)  # microseconds
_V2_THROTTLED = re.compile(rb"^throttled_usec (\d+)$", re.M)
_V1_THROTTLED = re.compile(rb"^throttled_time (\d+)$", re.M)  # nanoseconds
Counts = tuple[int, ...]  # by number of the class


class _Families:
    """The families of one scrape that have series for each container."""

    def __init__(self) -> None:
        self.info = BulkFamily(
            "gauge",
            "ringfence_container_info",
            "Facts about a container; join on `container`.",
            ["container", "name", "image", "runtime", "namespace", "pod"],
        )
        self.activity = BulkFamily(
            "counter",
            "ringfence_container_activity",
            "Operations of the tasks of a container, by class.",
            ["container", "class"],
        )
        self.tasks = BulkFamily(
            "gauge", "ringfence_container_armed_tasks", "Live armed tasks of a container.", ["container"]
        )


class _Series:
    """The lines of one container that stay the same from scrape to scrape."""

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
        """Add its lines; the lines of counts that did not change are reused."""
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
    """Remembers between scrapes which containers have series, their text, and the counts of the
    others.
    """

    def __init__(
        self,
        kernel: Kernel,
        slots: Callable[[int], ContainerValue | None],
        containers: Callable[[], Sequence[Container]],
        pressure: PressureMetrics,
        limit: int,
    ) -> None:
        """`slots` reads a slot, `containers` lists the live ones; `limit`: how many have series of
        their own.
        """
        self._kernel, self._slots, self._containers, self._limit = kernel, slots, containers, limit
        self._pressure = pressure
        self._own: dict[int, _Series | None] = {}  # by cgroup id
        self._summed: dict[int, Counts] = {}
        self._ended: Counts = ()
        self._lock = threading.Lock()  # two scrapes at once

    def samples(self) -> Iterator[Metric]:
        """The families of one scrape."""
        with self._lock:
            live = {container.cgroup_id: container for container in self._containers()}
            self._assign(live)
            yield from self._families(live)
            own = [container for cgroup, container in live.items() if cgroup in self._own]
            yield from self._pressure.collect(own)

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
        yield gauge("ringfence_armed_tasks", "Live armed tasks of all containers.", {}, all_tasks)
        yield gauge(
            "ringfence_containers_summed",
            "Live containers without series of their own, counted in `other`.",
            {},
            len(self._summed),
        )

    def _slot(self, container: Container) -> ContainerValue | None:
        value = self._slots(container.slot)
        return value if value and value.cgroup == container.cgroup_id else None

    def _lost(self, live: dict[int, Container]) -> Metric:
        family = CounterMetricFamily(
            "ringfence_container_events_dropped",
            "Records of a container that did not leave the kernel.",
            labels=["container", "reason"],
        )
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
    """Sums of two counts; a container that has counted nothing has an empty tuple."""
    return tuple(map(sum, zip(one, other, strict=True))) if one and other else one or other


def _grown(before: Counts, now: Counts) -> Counts:
    """The counts of now; those of before, if the slot was emptied after its owner was read."""
    return before if any(map(lt, now, before)) else now


def _about(container: Container) -> tuple[str | None, ...]:
    return container.name, container.image, container.runtime, container.namespace, container.pod


def _label(text: str | None) -> str:
    return escape(text, _LABEL_LIMIT) if text else ""


class _Cgroup:
    """One container's cgroup: its lines up to their values, its open files, and the files that it
    lacks.
    """

    __slots__ = ("absent", "label", "open", "path", "prefixes")

    def __init__(self, container: Container) -> None:
        self.path = container.cgroup_path.lstrip("/")
        self.label = escape(container.short_id, 64)
        self.prefixes: dict[tuple[str, ...], str] = {}  # by the labels behind the container's
        self.absent: set[str] = set()
        self.open: dict[str, int] = {}


class PressureMetrics:
    """Pressure and throttling, from files of cgroups. `v2` is where cgroup v2 is mounted, `cpu`
    the v1 controller; None where there is none.

    Files stay open from one scrape to the next, at most `files` of them: opening one is most of
    the cost of reading it. `close` closes them.
    """

    def __init__(self, v2: Path | None, cpu: Path | None, files: int = _FILES) -> None:
        self._v2, self._cpu, self._files = v2, cpu, files
        self._series: dict[int, _Cgroup] = {}  # by cgroup id

    def collect(self, containers: Iterable[Container]) -> Iterator[Metric]:
        """The families of one scrape, for these containers. Not from two threads at once."""
        stalled = BulkFamily(
            "counter",
            "ringfence_container_pressure_seconds",
            "Time for which tasks of a container waited for a resource.",
            ["container", "resource", "kind"],
        )
        throttled = BulkFamily(
            "counter",
            "ringfence_container_throttled_seconds",
            "Time for which the CPU limit of a container throttled it.",
            ["container"],
        )
        for series in self._live(containers):
            for resource, kind, seconds in self._stalled(series):
                _add_seconds(stalled, series, (resource, kind), seconds)
            held = self._throttled(series)
            if held is not None:
                _add_seconds(throttled, series, (), held)
        yield stalled
        yield throttled

    def close(self) -> None:
        """Close the files."""
        self._live(())

    def _live(self, containers: Iterable[Container]) -> list[_Cgroup]:
        """The cgroups whose path is known; the files of all others are closed."""
        before, self._series = self._series, {}
        for container in containers:
            if not container.cgroup_path.lstrip("/"):
                continue
            known = before.get(container.cgroup_id)
            if known is None or known.path != container.cgroup_path.lstrip("/"):
                known = _Cgroup(container)
            else:
                del before[container.cgroup_id]
            self._series[container.cgroup_id] = known
        for gone in before.values():
            self._files += len(gone.open)
            for fd in gone.open.values():
                os.close(fd)
        return list(self._series.values())

    def _stalled(self, series: _Cgroup) -> Iterator[tuple[str, str, float]]:
        for resource in _RESOURCES if self._v2 else ():
            data = self._read(f"{self._v2}/{series.path}/{resource}.pressure", series)
            for kind, total in _STALL.findall(data):
                yield resource, kind.decode(), int(total) / 1e6

    def _throttled(self, series: _Cgroup) -> float | None:
        if self._cpu:
            data = self._read(f"{self._cpu}/{series.path}/cpu.stat", series)
            if found := _V1_THROTTLED.search(data):
                return int(found[1]) / 1e9
        if self._v2:
            data = self._read(f"{self._v2}/{series.path}/cpu.stat", series)
            if found := _V2_THROTTLED.search(data):
                return int(found[1]) / 1e6
        return None

    def _read(self, path: str, series: _Cgroup) -> bytes:
        """The whole file; empty where there is none. An absent file is not tried again."""
        if path in series.absent:
            return b""
        fd = series.open.get(path, -1)
        try:
            if fd < 0:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if self._files > 0:
                    series.open[path], self._files = fd, self._files - 1
            return os.pread(fd, _FILE_MAX, 0)
        except OSError as error:
            # PSI may be compiled in and turned off. A read that failed because no descriptor was
            # free is tried again.
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                series.absent.add(path)
            return b""
        finally:
            if fd >= 0 and path not in series.open:
                os.close(fd)


def _add_seconds(family: BulkFamily, series: _Cgroup, more: tuple[str, ...], seconds: float) -> None:
    labels = (series.label, *more)
    prefix = series.prefixes.get(more)
    if prefix is None:
        prefix = series.prefixes[more] = family.prefix(labels)
    family.add_block(f"{prefix}{seconds}\n", lambda: [(labels, seconds)])
