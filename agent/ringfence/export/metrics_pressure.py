# SPDX-License-Identifier: Apache-2.0
"""Pressure and throttling of single containers, from the files of their cgroups, when somebody scrapes.

Pressure stall information is a matter of cgroup v2 (psi.rst); throttling is in cpu.stat of v2 and of v1. What
a host does not have has no series.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import Metric

from ringfence.containers.model import Container
from ringfence.export.escape import escape
from ringfence.export.exposition import BulkFamily

__all__ = ["PressureMetrics"]

_RESOURCES = ("cpu", "memory", "io")
_FILE_MAX = 4096  # of these files, which the kernel writes in one piece
_STALL = re.compile(rb"^(some|full) .*total=(\d+)$", re.M)  # microseconds
_V2_THROTTLED = re.compile(rb"^throttled_usec (\d+)$", re.M)
_V1_THROTTLED = re.compile(rb"^throttled_time (\d+)$", re.M)  # nanoseconds


class _Series:
    """The lines of one container up to their values, and which files it does not have."""

    __slots__ = ("absent", "label", "prefixes")

    def __init__(self, container: Container) -> None:
        self.label = escape(container.short_id, 64)
        self.prefixes: dict[tuple[str, ...], str] = {}  # by the labels behind the container's
        self.absent: set[str] = set()


class PressureMetrics:
    """`v2` is where cgroup v2 is mounted, `cpu` the v1 controller; None where there is none."""

    def __init__(self, v2: Path | None, cpu: Path | None) -> None:
        self._v2, self._cpu = v2, cpu
        self._series: dict[int, _Series] = {}  # by cgroup id

    def collect(self, containers: Iterable[Container]) -> Iterator[Metric]:
        """The families of one scrape, for these containers. Not of two threads at once."""
        stalled = BulkFamily(
            "counter", "ringfence_container_pressure_seconds",
            "Time that tasks of a container waited for a resource.", ["container", "resource", "kind"],
        )  # fmt: skip
        throttled = BulkFamily(
            "counter", "ringfence_container_throttled_seconds", "Time that its CPU limit held a container.",
            ["container"],
        )  # fmt: skip
        before, self._series = self._series, {}
        for container in containers:
            path = container.cgroup_path.lstrip("/")
            if not path:
                continue
            series = before.get(container.cgroup_id) or _Series(container)
            self._series[container.cgroup_id] = series
            for resource, kind, seconds in self._stalled(path, series.absent):
                _add(stalled, series, (resource, kind), seconds)
            held = self._throttled(path, series.absent)
            if held is not None:
                _add(throttled, series, (), held)
        yield stalled
        yield throttled

    def _stalled(self, path: str, absent: set[str]) -> Iterator[tuple[str, str, float]]:
        for resource in _RESOURCES if self._v2 else ():
            for kind, total in _STALL.findall(_read(f"{self._v2}/{path}/{resource}.pressure", absent)):
                yield resource, kind.decode(), int(total) / 1e6

    def _throttled(self, path: str, absent: set[str]) -> float | None:
        if self._cpu and (found := _V1_THROTTLED.search(_read(f"{self._cpu}/{path}/cpu.stat", absent))):
            return int(found[1]) / 1e9
        if self._v2 and (found := _V2_THROTTLED.search(_read(f"{self._v2}/{path}/cpu.stat", absent))):
            return int(found[1]) / 1e6
        return None


def _add(family: BulkFamily, series: _Series, more: tuple[str, ...], seconds: float) -> None:
    labels = (series.label, *more)
    prefix = series.prefixes.get(more)
    if prefix is None:
        prefix = series.prefixes[more] = family.prefix(labels)
    family.add_block(f"{prefix}{seconds}\n", lambda: [(labels, seconds)])


def _read(path: str, absent: set[str]) -> bytes:
    """The whole file; empty where there is none, or no longer. What is not there is not asked for again."""
    if path in absent:
        return b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        absent.add(path)
        return b""
    try:
        return os.read(fd, _FILE_MAX)
    except OSError:  # PSI is compiled in and turned off
        absent.add(path)
        return b""
    finally:
        os.close(fd)
