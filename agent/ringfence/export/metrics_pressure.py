# SPDX-License-Identifier: Apache-2.0
"""Pressure and throttling of single containers, from the files of their cgroups, when somebody scrapes.

Pressure stall information is a matter of cgroup v2 (psi.rst); throttling is in cpu.stat of v2 and of v1. What
a host does not have has no series.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import Metric

from ringfence.containers.model import Container
from ringfence.export.escape import escape
from ringfence.export.exposition import BulkFamily

__all__ = ["PressureMetrics"]

_RESOURCES = ("cpu", "memory", "io")
_STALL = re.compile(rb"^(some|full) .*total=(\d+)$", re.M)  # microseconds
_V2_THROTTLED = re.compile(rb"^throttled_usec (\d+)$", re.M)
_V1_THROTTLED = re.compile(rb"^throttled_time (\d+)$", re.M)  # nanoseconds


class PressureMetrics:
    """`v2` is where cgroup v2 is mounted, `cpu` the v1 controller; None where there is none."""

    def __init__(self, v2: Path | None, cpu: Path | None) -> None:
        self._v2, self._cpu = v2, cpu

    def collect(self, containers: Iterable[Container]) -> Iterator[Metric]:
        """The families of one scrape, for these containers."""
        stalled = BulkFamily(
            "counter", "ringfence_container_pressure_seconds",
            "Time that tasks of a container waited for a resource.", ["container", "resource", "kind"],
        )  # fmt: skip
        throttled = BulkFamily(
            "counter", "ringfence_container_throttled_seconds", "Time that its CPU limit held a container.",
            ["container"],
        )  # fmt: skip
        for container in containers:
            label, path = escape(container.short_id, 64), container.cgroup_path.lstrip("/")
            if not path:
                continue
            for resource, kind, seconds in self._stalled(path):
                stalled.add_metric([label, resource, kind], seconds)
            held = self._throttled(path)
            if held is not None:
                throttled.add_metric([label], held)
        yield stalled
        yield throttled

    def _stalled(self, path: str) -> Iterator[tuple[str, str, float]]:
        for resource in _RESOURCES if self._v2 else ():
            for kind, total in _STALL.findall(_read(f"{self._v2}/{path}/{resource}.pressure")):
                yield resource, kind.decode(), int(total) / 1e6

    def _throttled(self, path: str) -> float | None:
        if self._cpu and (found := _V1_THROTTLED.search(_read(f"{self._cpu}/{path}/cpu.stat"))):
            return int(found[1]) / 1e9
        if self._v2 and (found := _V2_THROTTLED.search(_read(f"{self._v2}/{path}/cpu.stat"))):
            return int(found[1]) / 1e6
        return None


def _read(path: str) -> bytes:
    """The whole file; empty where there is none, or no longer."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
