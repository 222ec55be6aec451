# SPDX-License-Identifier: Apache-2.0
"""The collector of /metrics: at each scrape it asks a list of parts for their samples. It keeps
nothing.

Every label has a bounded number of values; per-container series exist for live containers only, up
to a limit. docs/reference/metrics.md lists every metric, and a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

__all__ = ["Part", "RingfenceCollector", "new_registry"]


class Part(Protocol):
    """A part of the agent that has metrics."""

    def samples(self) -> Iterable[Metric]:
        """The families of one scrape, in the scrape's thread. Several parts may have the same
        family.
        """


class RingfenceCollector(Collector):
    """Everything that starts with ringfence_."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape, each once: the samples of a family that several parts have
        are joined.
        """
        families: dict[str, Metric] = {}
        for part in self._parts:
            for family in part.samples():
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        return iter(families.values())


def new_registry(parts: Sequence[Part]) -> CollectorRegistry:
    """A registry with the collector and the usual process_* metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RingfenceCollector(parts))
    ProcessCollector(registry=registry)
    return registry
