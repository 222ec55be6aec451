# SPDX-License-Identifier: Apache-2.0
"""The agent's own limits: memory and CPU of its cgroup, version 1 or 2, and how near the agent is
to them.

They are only read here; systemd or the kubelet sets them. Near a limit the agent reduces its work
before the kernel forces it to: see ringfence.daemon.health.backpressure. Files:
Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, scheduler/sched-bwc.rst.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ringfence.containers.hierarchy import hierarchy_mounts

__all__ = ["Load", "ResourceLimits", "lower_priority", "raise_priority"]

_OOM_SCORE = "-900"  # workloads are killed first; not -1000: in a cgroup of its own that would be a deadlock
_NICE = -10
_AGENT_BYTES = 64 << 20  # with fifty containers (tools/bench/memory)
_TASK_BYTES = 2424  # kernel memory of one task: struct rf_armed with its buffer, and its entry
_LEAST_TASKS = 8192  # whatever the limit: more than honest workloads have
_NO_LIMIT = 1 << 60  # version 1 reports "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class Load:
    """0 to 1: `memory` is the used part of the limit, `throttled` the part of the time; 0 if there
    is no limit.
    """

    memory: float = 0.0
    throttled: float = 0.0


def lower_priority(path: Path = Path("/proc/self/oom_score_adj")) -> bool:
    """Ask the kernel to kill other processes first when memory runs out. Returns False without
    CAP_SYS_RESOURCE, which this needs.
    """
    try:
        if int(path.read_text()) > int(_OOM_SCORE):
            path.write_text(_OOM_SCORE)
    except (OSError, ValueError):
        return False
    return True


def raise_priority(nice: int = _NICE) -> bool:
    """Schedule the calling thread, and those that it starts, before the workloads: a container
    that keeps all CPUs busy must not delay the alerts of the others. Returns False without
    CAP_SYS_NICE, which this needs. A lower value that was set before is kept.
    """
    try:
        if os.getpriority(os.PRIO_PROCESS, 0) > nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError:
        return False
    return True


class _Version(NamedTuple):
    """Names of a memory cgroup's files, and the prefix of its statistics."""

    limit: str
    usage: str
    prefix: str


_V2 = _Version("memory.max", "memory.current", "")
_V1 = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


class ResourceLimits:
    """`memory_limit` in bytes and `cpus`, 0: none; `throttled_seconds` since the cgroup was made.
    `load` is for one thread only.
    """

    def __init__(
        self, found: str = "", proc: Path = Path("/proc/self"), clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`found`: the path of the agent's cgroup in the hierarchy that identifies containers. It
        is used if /proc/self/cgroup does not show the path, as in a cgroup namespace.
        """
        v1, v2 = hierarchy_mounts(proc)
        named = dict(_named(proc))
        self._memory = list(_lineage(v1.get("memory", ""), named.get("memory", ""), found))
        self._cpu = list(_lineage(v1.get("cpu", ""), named.get("cpu", ""), found))
        self._unified = list(_lineage(v2, named.get("", ""), found))
        self._clock = clock
        self._before = (clock(), self.throttled_seconds)

    @property
    def memory_limit(self) -> int:
        """The lowest limit of the cgroup and those above it."""
        return min((limit for _, limit, _ in self._limits()), default=0)

    @property
    def cpus(self) -> float:
        """The lowest share of CPU time of the cgroup and those above it."""
        found = []
        for path in self._unified:
            quota, _, period = _text(path / "cpu.max").partition(" ")
            if quota.isdecimal() and period.isdecimal():
                found.append(int(quota) / int(period))
        for path in self._cpu:
            limit, every = _number(path / "cpu.cfs_quota_us"), _number(path / "cpu.cfs_period_us")
            if limit > 0 and every > 0:
                found.append(limit / every)
        return min(found, default=0.0)

    @property
    def throttled_seconds(self) -> float:
        """For how long the cgroup was throttled."""
        found = [_stat(path / "cpu.stat", "throttled_usec") / 1e6 for path in self._unified]
        found += [_stat(path / "cpu.stat", "throttled_time") / 1e9 for path in self._cpu]
        return max(found, default=0.0)

    @property
    def task_share(self) -> int:
        """How many tasks one container may have: their entries may take half of the memory that
        the limit leaves beside the agent itself. 0: no limit.
        """
        limit = self.memory_limit
        return max(_LEAST_TASKS, (limit - _AGENT_BYTES) // 2 // _TASK_BYTES) if limit else 0

    @property
    def memory_free(self) -> int:
        """Bytes that can be charged without giving up page cache, to the nearest limit; 0 if there
        is no limit.
        """
        return min((limit - used for _, limit, used, _ in self._levels()), default=0)

    @property
    def memory_cache(self) -> int:
        """Bytes of page cache that the kernel can give up at once, at the nearest limit."""
        nearest = min(self._levels(), key=lambda level: level[1] - level[2], default=None)
        if nearest is None:
            return 0
        path, _, _, prefix = nearest
        stats = _stats(path / "memory.stat")
        busy = ("dirty", "writeback") if prefix else ("file_dirty", "file_writeback")
        cache, kept = (
            sum(stats.get(f"{prefix}{name}", 0) for name in names)
            for names in (("inactive_file", "active_file"), busy)
        )
        return max(0, cache - kept)

    def _limits(self) -> Iterator[tuple[Path, int, _Version]]:
        """Each cgroup with a limit: path, limit, and the names of its files."""
        for paths, version in ((self._unified, _V2), (self._memory, _V1)):
            for path in paths:
                if 0 < (most := _number(path / version.limit)) < _NO_LIMIT:
                    yield path, most, version

    def _levels(self) -> Iterator[tuple[Path, int, int, str]]:
        """Each cgroup with a limit: path, limit, usage, and the prefix of its statistics."""
        for path, most, version in self._limits():
            yield path, most, _number(path / version.usage), version.prefix

    def memory_used(self) -> float:
        """0 to 1 of the nearest limit, without memory that the kernel can reclaim at once (file
        cache).
        """
        return max(
            (
                (used - _stat(path / "memory.stat", f"{prefix}inactive_file")) / limit
                for path, limit, used, prefix in self._levels()
            ),
            default=0.0,
        )

    def load(self) -> Load:
        """How near the limits are; `throttled` is since the last call."""
        now, throttled = self._clock(), self.throttled_seconds
        then, before = self._before
        self._before = (now, throttled)
        elapsed = now - then
        return Load(self.memory_used(), min(1.0, (throttled - before) / elapsed) if elapsed > 0 else 0.0)


def _named(proc: Path) -> Iterator[tuple[str, str]]:
    """Controller ("": version 2) and path of each line of /proc/self/cgroup."""
    for line in (proc / "cgroup").read_text(errors="surrogateescape").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _lineage(mount: str, *paths: str) -> Iterator[Path]:
    """The first of the paths that exists, and the cgroups above it, without the root, which has no
    limits.
    """
    at = next((Path(mount + path) for path in paths if path.strip("/") and Path(mount + path).is_dir()), None)
    while mount and at is not None and at != Path(mount) and at != at.parent:
        yield at
        at = at.parent


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    """The number in a file; -1: no file, or no limit."""
    text = _text(path)
    return int(text) if text.lstrip("-").isdecimal() else -1


def _stats(path: Path) -> dict[str, int]:
    pairs = (line.partition(" ") for line in _text(path).splitlines())
    return {key: int(value) for key, _, value in pairs if value.isdecimal()}


def _stat(path: Path, name: str) -> int:
    return _stats(path).get(name, 0)
