# SPDX-License-Identifier: Apache-2.0
"""Pressure and throttling of single containers, from the files of their cgroups, when somebody scrapes.

Pressure stall information is a matter of cgroup v2 (psi.rst); throttling is in cpu.stat of v2 and of v1. What
a host does not have has no series.
"""

from __future__ import annotations

import errno
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
_FILES = 256  # that may stay open
_FILE_MAX = 4096  # of these files, which the kernel writes in one piece
_STALL = re.compile(rb"^(some|full) .*total=(\d+)$", re.M)  # microseconds
_V2_THROTTLED = re.compile(rb"^throttled_usec (\d+)$", re.M)
_V1_THROTTLED = re.compile(rb"^throttled_time (\d+)$", re.M)  # nanoseconds


class _Series:
    """One container: its lines up to their values, its open files, and which files it does not have."""

    __slots__ = ("absent", "label", "open", "path", "prefixes")

    def __init__(self, container: Container) -> None:
        self.path = container.cgroup_path.lstrip("/")
        self.label = escape(container.short_id, 64)
        self.prefixes: dict[tuple[str, ...], str] = {}  # by the labels behind the container's
        self.absent: set[str] = set()
        self.open: dict[str, int] = {}


class PressureMetrics:
    """`v2` is where cgroup v2 is mounted, `cpu` the v1 controller; None where there is none.

    Files stay open from one scrape to the next, at most `files` of them: opening one is most of what reading
    it takes. `close` gives them back.
    """

    def __init__(self, v2: Path | None, cpu: Path | None, files: int = _FILES) -> None:
        self._v2, self._cpu, self._files = v2, cpu, files
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
        for series in self._live(containers):
            for resource, kind, seconds in self._stalled(series):
                _add(stalled, series, (resource, kind), seconds)
            held = self._throttled(series)
            if held is not None:
                _add(throttled, series, (), held)
        yield stalled
        yield throttled

    def close(self) -> None:
        """Give the files back."""
        self._live(())

    def _live(self, containers: Iterable[Container]) -> list[_Series]:
        """Those whose path is known; what the others held is given back."""
        before, self._series = self._series, {}
        for container in containers:
            if not container.cgroup_path.lstrip("/"):
                continue
            known = before.get(container.cgroup_id)
            if known is None or known.path != container.cgroup_path.lstrip("/"):
                known = _Series(container)
            else:
                del before[container.cgroup_id]
            self._series[container.cgroup_id] = known
        for gone in before.values():
            self._files += len(gone.open)
            for fd in gone.open.values():
                os.close(fd)
        return list(self._series.values())

    def _stalled(self, series: _Series) -> Iterator[tuple[str, str, float]]:
        for resource in _RESOURCES if self._v2 else ():
            data = self._read(f"{self._v2}/{series.path}/{resource}.pressure", series)
            for kind, total in _STALL.findall(data):
                yield resource, kind.decode(), int(total) / 1e6

    def _throttled(self, series: _Series) -> float | None:
        if self._cpu:
            data = self._read(f"{self._cpu}/{series.path}/cpu.stat", series)
            if found := _V1_THROTTLED.search(data):
                return int(found[1]) / 1e9
        if self._v2:
            data = self._read(f"{self._v2}/{series.path}/cpu.stat", series)
            if found := _V2_THROTTLED.search(data):
                return int(found[1]) / 1e6
        return None

    def _read(self, path: str, series: _Series) -> bytes:
        """The whole file; empty where there is none, which is not asked for again, or no longer."""
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
            # PSI may be compiled in and turned off. Without descriptors it is asked for again.
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                series.absent.add(path)
            return b""
        finally:
            if fd >= 0 and path not in series.open:
                os.close(fd)


def _add(family: BulkFamily, series: _Series, more: tuple[str, ...], seconds: float) -> None:
    labels = (series.label, *more)
    prefix = series.prefixes.get(more)
    if prefix is None:
        prefix = series.prefixes[more] = family.prefix(labels)
    family.add_block(f"{prefix}{seconds}\n", lambda: [(labels, seconds)])
