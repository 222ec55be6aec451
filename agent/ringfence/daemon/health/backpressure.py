# SPDX-License-Identifier: Apache-2.0
"""Lowers the rate of activity before the agent falls behind, and reports it.

The rate is halved while the activity ring is half full, halved again if it stays so, and doubled
step by step when the ring is nearly empty. The same happens when the agent comes near its own
limits of memory or CPU time (visible as throttling). Alerts have a ring of their own and are not
affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric

from ringfence import log
from ringfence.bpf.maps import Map
from ringfence.bpf.ring import Ring
from ringfence.daemon.startup.resource_limits import ResourceLimits
from ringfence.export import families

__all__ = ["Backpressure"]

_HIGH, _LOW = 0.5, 0.1  # fill of the ring
_MEMORY_HIGH, _MEMORY_LOW = 0.9, 0.8  # part of the limit
_THROTTLED_HIGH, _THROTTLED_LOW = 0.25, 0.05  # part of the time
_CALM = 10  # rounds of a nearly empty ring before the rate is doubled again
_MOST = 8  # halvings


class Backpressure:
    """`tick` is called each second, in the loop."""

    def __init__(
        self,
        activity: Ring,
        size: int,
        halvings: Map,
        limits: ResourceLimits,
        relieve: Callable[[], object] = lambda: None,
    ) -> None:
        """`limits` are the agent's own. `relieve` is called when its memory comes near the limit."""
        self._activity, self._size, self._map = activity, size, halvings
        self._limits, self._relieve = limits, relieve
        self._halvings = self._calm = 0
        self._log = log.get_logger("pressure")

    def tick(self) -> None:
        """Check the ring and the limits once."""
        fill, load = self._activity.pending() / self._size, self._limits.load()
        reasons = [
            reason
            for reason, high in (
                ("ring", fill > _HIGH),
                ("memory", load.memory > _MEMORY_HIGH),
                ("cpu", load.throttled > _THROTTLED_HIGH),
            )
            if high
        ]
        calm = fill < _LOW and load.memory < _MEMORY_LOW and load.throttled < _THROTTLED_LOW
        self._calm = self._calm + 1 if calm else 0
        if "memory" in reasons:
            self._relieve()
        halvings = self._halvings
        if reasons and halvings < _MOST:
            self._set(halvings + 1, " ".join(reasons))
        elif halvings and self._calm >= _CALM:
            self._set(halvings - 1, "calm")

    def _set(self, halvings: int, why: str) -> None:
        self._calm = 0
        self._halvings = halvings
        self._map.set(0, halvings)
        self._log.warning("the rate of activity was changed", halvings=halvings, why=why)

    def samples(self) -> Iterator[Metric]:
        """The agent's own limits, and how often the rate is halved."""
        limits = self._limits
        size = limits.memory_limit
        memory = (size, limits.memory_used() if size else 0.0)
        yield from families.own_limits(memory, limits.cpus, limits.throttled_seconds, self._halvings)
