# SPDX-License-Identifier: Apache-2.0
"""The metrics of single containers, with the files of cgroups that they keep open."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from ringfence.containers.hierarchy import hierarchy_mounts
from ringfence.containers.registry import Registry
from ringfence.daemon.parts import Loaded
from ringfence.export.container_metrics import ContainerMetrics, PressureMetrics

__all__ = ["container_metrics"]

_DESCRIPTORS = 16_384  # four files for each container of the default maximum


def container_metrics(loaded: Loaded, registry: Registry, limit: int) -> ContainerMetrics:
    """`limit`: how many containers have series of their own. Nothing is read before a scrape."""
    return ContainerMetrics(loaded.kernel, loaded.slots.read, registry.workloads, _pressure(), limit)


def _pressure() -> PressureMetrics:
    v1, v2 = hierarchy_mounts()
    cpu = Path(v1["cpu"]) if "cpu" in v1 else None
    return PressureMetrics(Path(v2) if v2 else None, cpu, files=_descriptors() // 2)


def _descriptors() -> int:
    """Raise the soft limit of descriptors to _DESCRIPTORS if that is allowed. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if most > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return soft
