# SPDX-License-Identifier: Apache-2.0
"""Lowers the rate of activity before the agent falls behind, and reports it: by half while the activity ring
is half full, by half again if it stays so, and back step by step when it is nearly empty. The same when the
agent nears its own limits of memory or CPU time (which shows as throttling).

Alerts have a ring of their own and are not affected.
"""

from __future__ import annotations

from collections.abc import Callable

from ringfence import log
from ringfence.bpf.maps import Map
from ringfence.bpf.ring import Ring
from ringfence.daemon.startup.resource_limits import Load
from ringfence.export.stats import Stats

__all__ = ["Backpressure"]

_HIGH, _LOW = 0.5, 0.1  # of the ring
_MEMORY_HIGH, _MEMORY_LOW = 0.9, 0.8  # of the limit
_THROTTLED_HIGH, _THROTTLED_LOW = 0.25, 0.05  # of the time
_CALM = 10  # rounds of a nearly empty ring before the rate is doubled again
_MOST = 8


class Backpressure:
    """`tick` is called each second, in the loop."""

    def __init__(
        self,
        activity: Ring,
        size: int,
        halvings: Map,
        stats: Stats,
        load: Callable[[], Load] = Load,
        relieve: Callable[[], object] = lambda: None,
    ) -> None:
        """`load`: how near the agent's own limits are. `relieve` is called when its memory is."""
        self._activity, self._size, self._map, self._stats = activity, size, halvings, stats
        self._load, self._relieve = load, relieve
        self._calm = 0
        self._log = log.get_logger("pressure")

    def tick(self) -> None:
        """One look at the ring, and at the limits."""
        fill, load = self._activity.pending() / self._size, self._load()
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
        halvings = self._stats.activity_halvings
        if reasons and halvings < _MOST:
            self._set(halvings + 1, " ".join(reasons))
        elif halvings and self._calm >= _CALM:
            self._set(halvings - 1, "calm")

    def _set(self, halvings: int, why: str) -> None:
        self._calm = 0
        self._stats.activity_halvings = halvings
        self._map.set(0, halvings)
        self._log.warning("the rate of activity is changed", halvings=halvings, why=why)
