# SPDX-License-Identifier: Apache-2.0
"""Counters of the agent itself, written by the loop's thread and read by a scrape: no locks needed."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from prometheus_client.samples import Exemplar

from ringfence.abi import EVENT_MAX
from ringfence.containers.model import Container
from ringfence.export.attempts import Attempts
from ringfence.export.container_alerts import ContainerAlerts, RuleFacts

__all__ = ["LATENCY_BUCKETS", "Histogram", "Stats"]

_MAX_RULES = 1000  # rules with their own time series
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)  # seconds


class Histogram:
    """Counts in fixed buckets, and the sum."""

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, alert: str = "") -> None:
        """Counts one value, in the unit of the bounds. `alert`: the id of the alert that it is about."""
        index = bisect_left(self.bounds, value)
        self.counts[index] += 1
        self.total += value
        if alert:
            self.exemplars[index] = Exemplar({"alert_id": alert}, value, round(time.time(), 3))

    def cumulative(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """Returns Prometheus' buckets: upper bound, number of values up to it, the last one's alert."""
        buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
        so_far = 0
        bounds = (*map(str, self.bounds), "+Inf")
        for bound, count, exemplar in zip(bounds, self.counts, self.exemplars, strict=True):
            so_far += count
            buckets.append((bound, float(so_far), exemplar) if exemplar else (bound, float(so_far)))
        return buckets


class Stats:
    """Counters since the agent started. Durations are in seconds."""

    __slots__ = (
        "alert_latency",
        "alerts",
        "alerts_suppressed",
        "attach_seconds",
        "attempts",
        "clock_changes",
        "container_alerts",
        "decode_errors",
        "loop_seen",
        "received",
        "reloads",
        "responses",
        "rules",
        "startup_seconds",
    )

    def __init__(self, node: str = "") -> None:
        """`node` is the node's name, for the metrics."""
        self.received = [0] * EVENT_MAX  # records decoded, by event number
        self.decode_errors: Counter[str] = Counter()  # by reason
        self.alerts: Counter[tuple[str, str, str, str]] = Counter()  # by rule, severity, action, outcome
        self.attempts = Attempts()
        self.container_alerts = ContainerAlerts(node)
        self.alerts_suppressed: Counter[str] = Counter()  # by rule
        self.clock_changes = 0
        self.alert_latency = Histogram()
        self.reloads: Counter[str] = Counter()  # by result: loaded, refused
        self.responses: Counter[str] = Counter()  # kills from user space, by result
        self.startup_seconds = 0.0  # process start -> ready
        self.attach_seconds = 0.0
        self.loop_seen = 0.0  # time.monotonic() of the loop's last iteration
        self.rules: set[str] = set()  # rules with series

    def clock_set(self) -> None:
        """Counts a change of the clock."""
        self.clock_changes += 1

    def count_alert(
        self,
        facts: RuleFacts,
        action: str,
        outcome: str,
        attack: Iterable[str],
        container: Container | None,
    ) -> str:
        """Counts one verdict or finding. Returns the rule's label."""
        name = self.series(facts.rule)
        self.alerts[name, facts.severity, action, outcome] += 1
        self.attempts.add(attack, container.namespace if container else None, outcome)
        self.container_alerts.add(facts._replace(rule=name), outcome, container)
        return name

    def attached(self, seconds: float) -> None:
        """Attaching the programs has taken so long."""
        self.attach_seconds = seconds

    def started(self, seconds: float) -> None:
        """The start, from the process's beginning to ready, has taken so long."""
        self.startup_seconds = seconds

    def turned(self) -> None:
        """The loop is alive."""
        self.loop_seen = time.monotonic()

    def series(self, rule: str) -> str:
        """Returns a rule's label. Reloads must not grow the number of labels without bound."""
        if rule not in self.rules:
            if len(self.rules) >= _MAX_RULES:
                return "other"
            self.rules.add(rule)
        return rule
