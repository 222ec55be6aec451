# SPDX-License-Identifier: Apache-2.0
"""The agent lowers the rate of activity before it falls behind, and says so: half of it while the ring of
activity is half full, half of that when it stays so, and back step by step when it is nearly empty.

Alerts have a ring of their own and are not touched.
"""

from __future__ import annotations

from ringfence import log
from ringfence.bpf.maps import Map
from ringfence.bpf.ring import Ring
from ringfence.export.stats import Stats

__all__ = ["Pressure"]

_HIGH, _LOW = 0.5, 0.1  # of the ring
_CALM = 10  # rounds of a nearly empty ring before the rate is doubled again
_MOST = 8


class Pressure:
    """`tick` is called each second, in the loop."""

    def __init__(self, activity: Ring, size: int, halvings: Map, stats: Stats) -> None:
        self._activity, self._size, self._map, self._stats = activity, size, halvings, stats
        self._calm = 0
        self._log = log.get_logger("pressure")

    def tick(self) -> None:
        """One look at the ring."""
        fill = self._activity.pending() / self._size
        self._calm = self._calm + 1 if fill < _LOW else 0
        halvings = self._stats.activity_halvings
        if fill > _HIGH and halvings < _MOST:
            self._set(halvings + 1, fill)
        elif halvings and self._calm >= _CALM:
            self._set(halvings - 1, fill)

    def _set(self, halvings: int, fill: float) -> None:
        self._calm = 0
        self._stats.activity_halvings = halvings
        self._map.set(0, halvings)
        self._log.warning("the rate of activity is changed", halvings=halvings, ring_fill=round(fill, 2))
