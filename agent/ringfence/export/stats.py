# SPDX-License-Identifier: Apache-2.0
"""Counters of the agent itself, written by the loop's thread and read by a scrape: no locks needed."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter

from ringfence.abi import EVENT_MAX
from ringfence.export.attempts import Attempts

__all__ = ["LATENCY_BUCKETS", "Histogram", "Stats"]

_MAX_RULES = 1000  # rules with their own time series
LATENCY_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)  # seconds


class Histogram:
    """Counts in fixed buckets, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Returns Prometheus' buckets: (upper bound, number of values up to it)."""
        pairs, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            pairs.append((bound, float(so_far)))
        return pairs


class Stats:
    """Counters since the agent started. Durations are in seconds."""

    __slots__ = (
        "alert_latency",
        "alerts",
        "alerts_suppressed",
        "attach_seconds",
        "attempts",
        "clock_changes",
        "decode_errors",
        "loop_seen",
        "received",
        "reloads",
        "responses",
        "rules",
        "startup_seconds",
    )

    def __init__(self) -> None:
        self.received = [0] * EVENT_MAX  # records decoded, by event number
        self.decode_errors: Counter[str] = Counter()  # by reason
        self.alerts: Counter[tuple[str, str, str, str]] = Counter()  # by rule, severity, action, outcome
        self.attempts = Attempts()
        self.alerts_suppressed: Counter[str] = Counter()  # by rule
        self.clock_changes = 0
        self.alert_latency = Histogram()
        self.reloads: Counter[str] = Counter()  # by result: loaded, refused
        self.responses: Counter[str] = Counter()  # kills from user space, by result
        self.startup_seconds = 0.0  # process start -> ready
        self.attach_seconds = 0.0
        self.loop_seen = 0.0  # time.monotonic() of the loop's last iteration
        self.rules: set[str] = set()  # rules with series

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
