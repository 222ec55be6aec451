# SPDX-License-Identifier: Apache-2.0
"""Alerts by container, for the alerting rules: which rule, which pod, and how it ended.

The number of series is bounded. A series that did not change for an hour is removed, so that new
containers find room; without room an alert counts for the container `other`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, Metric

from ringfence.containers.model import Container
from ringfence.export.escape import escape

__all__ = ["OTHER", "ContainerAlerts", "RuleFacts"]

OTHER = "other"
_MAX_SERIES = 500
_IDLE_S = 3600.0
_NAMES_S = 3.0  # time for which an alert waits for the container's names
_LABELS = ("node", "namespace", "pod", "container", "rule", "title", "severity", "kind", "outcome")


class RuleFacts(NamedTuple):
    """The rule or detector that matched. `kind`: rule, detector, or condemned (no attempt)."""

    rule: str
    title: str
    severity: str
    kind: str = "rule"


class _Count:
    """A count and when it changed."""

    __slots__ = ("changed", "container", "count", "since")

    def __init__(self, now: float, container: Container | None = None) -> None:
        self.since, self.container = now, container
        self.changed, self.count = now, 0

    def add(self, now: float, times: int = 1) -> None:
        """Counts."""
        self.count, self.changed = self.count + times, now


class ContainerAlerts:
    """Counts in the loop's thread, collected in the thread of a scrape."""

    def __init__(
        self, node: str = "", *, most: int = _MAX_SERIES, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`node` is the node's name; `most`: maximum series."""
        self._node, self._most, self._now = escape(node, 253), most, now
        self._series: dict[tuple[str, ...], _Count] = {}  # by its labels
        self._unnamed: dict[tuple[int, RuleFacts, str], _Count] = {}  # the container's names may follow
        self._lock = threading.Lock()

    def add(self, facts: RuleFacts, outcome: str, container: Container | None) -> None:
        """Counts one verdict or finding."""
        now = self._now()
        with self._lock:
            if container is None or container.settled:
                self._named(_names(container), facts, outcome, now).add(now)
                return
            key = (container.cgroup_id, facts, outcome)
            if key not in self._unnamed and self._is_full(now):
                self._named(("", "", OTHER), facts, outcome, now).add(now)
                return
            self._unnamed.setdefault(key, _Count(now)).add(now)
            self._unnamed[key].container = container

    def identified(self, container: Container) -> None:
        """More is known about a container."""
        with self._lock:
            for (cgroup, _, _), counted in self._unnamed.items():
                if cgroup == container.cgroup_id:
                    counted.container = container

    def collect(self) -> Iterator[Metric]:
        """Yields the family of one scrape."""
        family = CounterMetricFamily(
            "ringfence_container_alerts",
            "Alerts by node, namespace, pod, container, rule and outcome, suppressed ones included.",
            labels=_LABELS,
        )
        now = self._now()
        with self._lock:
            self._name(now)
            self._tidy(now)
            for labels, counted in self._series.items():
                family.add_metric(labels, counted.count)
        yield family

    def _name(self, now: float) -> None:
        """Moves the counts of containers whose names are known, or have not come in time."""
        for key, counted in list(self._unnamed.items()):
            container = counted.container
            if container is None or container.settled or now - counted.since >= _NAMES_S:
                del self._unnamed[key]
                self._named(_names(container), key[1], key[2], now).add(counted.changed, counted.count)

    def _named(self, names: tuple[str, ...], facts: RuleFacts, outcome: str, now: float) -> _Count:
        """Returns the count of one series; that of `other` if there is no room for a new one."""
        labels = (
            self._node,
            *names,
            facts.rule,
            escape(facts.title, 160),
            facts.severity,
            facts.kind,
            outcome,
        )
        if labels not in self._series and self._is_full(now):
            labels = (self._node, "", "", OTHER, OTHER, "", facts.severity, facts.kind, outcome)
        return self._series.setdefault(labels, _Count(now))

    def _is_full(self, now: float) -> bool:
        if len(self._series) + len(self._unnamed) >= self._most:
            self._tidy(now)
        return len(self._series) + len(self._unnamed) >= self._most

    def _tidy(self, now: float) -> None:
        for key in [key for key, one in self._series.items() if now - one.changed >= _IDLE_S]:
            del self._series[key]


def _names(container: Container | None) -> tuple[str, str, str]:
    """Returns namespace, pod and container, as far as known."""
    if container is None:
        return "", "", ""
    words = (container.namespace, container.pod, container.name or container.short_id)
    namespace, pod, name = (escape(word or "", 128) for word in words)
    return namespace, pod, name
