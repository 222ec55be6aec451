# SPDX-License-Identifier: Apache-2.0
"""Keeps a part of the agent's memory limit free, for the kernel's entries of containers' tasks.

The kernel charges these entries to the agent's cgroup and cannot wait for memory when a task forks.
Page cache counts, too, and is not given up for such a charge: with a cgroup full of it, every fork
of a container is refused. So the agent makes the kernel give up page cache before that.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from ringfence import log
from ringfence.daemon.startup.resource_limits import ResourceLimits
from ringfence.export import families

__all__ = ["MemoryReserve", "wanted_of"]

_PART = 8  # of the limit
_LEAST, _MOST = 4 << 20, 64 << 20


def wanted_of(limit: int) -> int:
    """How many bytes below a limit are to stay free; 0: there is no limit."""
    return min(max(limit // _PART, _LEAST), _MOST) if limit else 0


def press(size: int) -> None:
    """Use that much memory for a moment. The kernel gives up page cache of the cgroup for it."""
    with mmap.mmap(-1, size) as ballast:
        for at in range(0, size, mmap.PAGESIZE):
            ballast[at] = 1


class MemoryReserve:
    """`tick` is called each second, in the loop."""

    def __init__(self, limits: ResourceLimits, press: Callable[[int], object] = press) -> None:
        self._limits, self._press = limits, press
        self._low = False
        self._log = log.get_logger("reserve")

    def tick(self) -> None:
        """Restore the reserve, as far as page cache can be given up for it."""
        wanted = wanted_of(self._limits.memory_limit)
        if not wanted:
            return
        free = self._limits.memory_free
        if free < wanted:
            # Never more than half of the cache: what is in use or not written yet stays, and an
            # allocation beyond the limit would kill the agent.
            cache = self._limits.memory_cache // 2
            size = min(wanted, free + cache) // mmap.PAGESIZE * mmap.PAGESIZE
            if cache and size > free:
                self._press(size)
                free = self._limits.memory_free
        if (free < wanted // 2) != self._low:
            self._low = not self._low
            self._report(free, wanted)

    def _report(self, free: int, wanted: int) -> None:
        if self._low:
            self._log.warning(
                "little memory is left for tasks of containers: soon their forks are refused",
                free=free,
                reserve=wanted,
            )
        else:
            self._log.info("the reserve of memory is restored", free=free, reserve=wanted)

    def samples(self) -> Iterator[Metric]:
        """The reserve, and what is free."""
        wanted = wanted_of(self._limits.memory_limit)
        yield from families.memory_reserve(wanted, self._limits.memory_free if wanted else 0)
