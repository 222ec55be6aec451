# SPDX-License-Identifier: Apache-2.0
"""Rate limit of alerts: a token bucket per container and rule, so that no container drowns the others.

Suppressed alerts are counted; the count is sent with the next alert of the pair, or by `flush`. Only reports
are limited: the kernel has already enforced the verdict.

Tokens are those of the time at which an event happened, not of the time at which it is reported: alerts that
waited in a ring while no agent ran, or while the agent was stopped, arrive together, and were not a flood.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Decision", "Limiter", "Suppressed"]

Key = tuple[int, str]  # cgroup id of the container, policy/rule


def _boottime_ns() -> int:
    """Returns the time on the clock of the kernel's events."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Decision(NamedTuple):
    """`suppressed`: the alerts of this container and rule that were suppressed since the last sent one."""

    passes: bool
    suppressed: int


class Suppressed(NamedTuple):
    """Suppressed alerts that no later alert has reported."""

    container: int
    rule: str
    times: int
    what: object  # of the last of them, as given to `admit`


class _Bucket:
    __slots__ = ("filled_ns", "passed", "passed_ns", "seen_ns", "suppressed", "tokens", "what")

    def __init__(self, tokens: float, at_ns: int, now: int) -> None:
        self.tokens, self.filled_ns = tokens, at_ns  # filled_ns: the time of the newest event
        self.seen_ns = now  # when the last alert was reported or counted
        self.suppressed = 0
        self.passed: object = None  # the deduplication key of the last alert that passed, and its time
        self.passed_ns = 0
        self.what: object = None


class Limiter:
    """`rate` alerts per second and `burst` at once, for each container and rule.

    A repetition of the last alert is suppressed for `same_ns`. At most `size` pairs are remembered; beyond
    that, the one without alerts for the longest time is forgotten.

    `time_ns` of an alert is the time of its event, on the clock `now_ns`; None: now. A time in the future
    counts as now, so it cannot block a pair.
    """

    def __init__(
        self,
        *,
        rate: float = 1.0,
        burst: int = 10,
        same_ns: int = 10**9,
        size: int = 4096,
        now_ns: Callable[[], int] = _boottime_ns,
    ) -> None:
        self._rate_ns, self._burst, self._same_ns, self._size = rate / 1e9, float(burst), same_ns, size
        self._now_ns = now_ns
        self._buckets: OrderedDict[Key, _Bucket] = OrderedDict()
        self._orphans: dict[Key, Suppressed] = {}
        self.suppressed = 0

    @property
    def capacity(self) -> tuple[int, int]:
        """The number of remembered pairs of container and rule, and its maximum."""
        return len(self._buckets), self._size

    def __len__(self) -> int:
        return len(self._buckets)

    def may_pass(self, container: int, rule: str, time_ns: int | None = None) -> bool:
        """Returns True if a new alert of this pair, of that time, could be sent now.

        This is cheap: an alert that cannot be sent need not be assembled; `hold` counts it.
        """
        bucket = self._buckets.get((container, rule))
        return bucket is None or self._fill(bucket, self._at(time_ns, self._now_ns())) >= 1.0

    def hold(self, container: int, rule: str, what: object = None, time_ns: int | None = None) -> Decision:
        """Counts an alert that is not sent."""
        bucket, at = self._bucket((container, rule), time_ns)
        self._fill(bucket, at)
        return self._suppress(bucket, what)

    def _suppress(self, bucket: _Bucket, what: object) -> Decision:
        bucket.suppressed += 1
        bucket.what = what
        self.suppressed += 1
        return Decision(False, bucket.suppressed)

    @staticmethod
    def _at(time_ns: int | None, now: int) -> int:
        return now if time_ns is None else min(time_ns, now)

    def _fill(self, bucket: _Bucket, at_ns: int) -> float:
        """Returns the tokens at that time. An event older than the newest one adds none."""
        if at_ns > bucket.filled_ns:
            added = (at_ns - bucket.filled_ns) * self._rate_ns
            bucket.tokens = min(self._burst, bucket.tokens + added)
            bucket.filled_ns = at_ns
        return bucket.tokens

    def _bucket(self, key: Key, time_ns: int | None) -> tuple[_Bucket, int]:
        """Returns the bucket of a pair, which was used now, and the time of the event."""
        now = self._now_ns()
        at, bucket = self._at(time_ns, now), self._buckets.get(key)
        if bucket is None:
            return self._new(key, at, now), at
        self._buckets.move_to_end(key)
        bucket.seen_ns = now
        return bucket, at

    def admit(
        self, container: int, rule: str, key: object, what: object = None, time_ns: int | None = None
    ) -> Decision:
        """Decides whether an alert is sent. An alert with the same `key` as the last one is a repetition."""
        bucket, at = self._bucket((container, rule), time_ns)
        repeated = bucket.passed == key and abs(at - bucket.passed_ns) < self._same_ns
        if self._fill(bucket, at) < 1.0 or repeated:
            return self._suppress(bucket, what)
        bucket.tokens -= 1.0
        bucket.passed, bucket.passed_ns, bucket.what = key, at, None
        suppressed, bucket.suppressed = bucket.suppressed, 0
        return Decision(True, suppressed)

    def flush(self, quiet_ns: int = 5 * 10**9) -> list[Suppressed]:
        """Returns the suppressed alerts of pairs that are forgotten, or had no alert for `quiet_ns`."""
        now = self._now_ns()
        found = list(self._orphans.values())
        self._orphans.clear()
        for (container, rule), bucket in self._buckets.items():
            if now - bucket.seen_ns < quiet_ns:
                break  # the others had later alerts
            if bucket.suppressed:
                found.append(Suppressed(container, rule, bucket.suppressed, bucket.what))
                bucket.suppressed, bucket.what = 0, None
        self._forget(now)
        return found

    def _forget(self, now: int) -> None:
        """Deletes buckets that are equivalent to new ones: full, and the last alert may be repeated."""
        full_ns = max(self._same_ns, int(self._burst / self._rate_ns) if self._rate_ns else 0)
        while self._buckets:
            key, bucket = next(iter(self._buckets.items()))
            if bucket.suppressed or now - bucket.seen_ns <= full_ns:
                return
            del self._buckets[key]

    def _new(self, key: Key, at_ns: int, now: int) -> _Bucket:
        if len(self._buckets) >= self._size:
            (container, rule), oldest = self._buckets.popitem(last=False)
            if oldest.suppressed:
                self._orphan(Suppressed(container, rule, oldest.suppressed, oldest.what))
        bucket = self._buckets[key] = _Bucket(self._burst, at_ns, now)
        return bucket

    def _orphan(self, lost: Suppressed) -> None:
        """Keeps the count of a forgotten pair; beyond `size` pairs, in one sum for all (container 0)."""
        key = (lost.container, lost.rule)
        if key not in self._orphans and len(self._orphans) >= self._size:
            key, lost = (0, ""), lost._replace(container=0, rule="")
        before = self._orphans.get(key)
        self._orphans[key] = lost._replace(times=lost.times + (before.times if before else 0))
