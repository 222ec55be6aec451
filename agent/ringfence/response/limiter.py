# SPDX-License-Identifier: Apache-2.0
"""Rate limit of alerts: a token bucket per container and rule, so that no container drowns the others.

Suppressed alerts are counted; the count is sent with the next alert of the pair, or by `flush`. Only reports
are limited: the kernel has already enforced the verdict.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Decision", "Limiter", "Suppressed"]

Key = tuple[int, str]  # cgroup id of the container, policy/rule


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
    __slots__ = ("passed", "passed_ns", "seen_ns", "suppressed", "tokens", "what")

    def __init__(self, tokens: float, now: int) -> None:
        self.tokens, self.seen_ns = tokens, now
        self.suppressed = 0
        self.passed: object = None  # the deduplication key of the last alert that passed, and its time
        self.passed_ns = 0
        self.what: object = None


class Limiter:
    """`rate` alerts per second and `burst` at once, for each container and rule.

    A repetition of the last alert is suppressed for `same_ns`. At most `size` pairs are remembered; beyond
    that, the one without alerts for the longest time is forgotten.
    """

    def __init__(
        self,
        *,
        rate: float = 1.0,
        burst: int = 10,
        same_ns: int = 10**9,
        size: int = 4096,
        now_ns: Callable[[], int] = time.monotonic_ns,
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

    def may_pass(self, container: int, rule: str) -> bool:
        """Returns True if a new alert of this pair could be sent now.

        This is cheap: an alert that cannot be sent need not be assembled; `hold` counts it.
        """
        bucket = self._buckets.get((container, rule))
        return bucket is None or self._fill(bucket, self._now_ns()) >= 1.0

    def hold(self, container: int, rule: str, what: object = None) -> Decision:
        """Counts an alert that is not sent."""
        now, key = self._now_ns(), (container, rule)
        bucket = self._buckets.get(key) or self._new(key, now)
        self._buckets.move_to_end(key)
        self._fill(bucket, now)
        return self._suppress(bucket, what)

    def _suppress(self, bucket: _Bucket, what: object) -> Decision:
        bucket.suppressed += 1
        bucket.what = what
        self.suppressed += 1
        return Decision(False, bucket.suppressed)

    def _fill(self, bucket: _Bucket, now: int) -> float:
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.seen_ns) * self._rate_ns)
        bucket.seen_ns = now
        return bucket.tokens

    def admit(self, container: int, rule: str, key: object, what: object = None) -> Decision:
        """Decides whether an alert is sent. An alert with the same `key` as the last one is a repetition."""
        now, pair = self._now_ns(), (container, rule)
        bucket = self._buckets.get(pair)
        if bucket is None:
            bucket = self._new(pair, now)
        else:
            self._buckets.move_to_end(pair)
        repeated = bucket.passed == key and now - bucket.passed_ns < self._same_ns
        if self._fill(bucket, now) < 1.0 or repeated:
            return self._suppress(bucket, what)
        bucket.tokens -= 1.0
        bucket.passed, bucket.passed_ns, bucket.what = key, now, None
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

    def _new(self, key: Key, now: int) -> _Bucket:
        if len(self._buckets) >= self._size:
            (container, rule), oldest = self._buckets.popitem(last=False)
            if oldest.suppressed:
                self._orphan(Suppressed(container, rule, oldest.suppressed, oldest.what))
        bucket = self._buckets[key] = _Bucket(self._burst, now)
        return bucket

    def _orphan(self, lost: Suppressed) -> None:
        """Keeps the count of a forgotten pair; beyond `size` pairs, in one sum for all (container 0)."""
        key = (lost.container, lost.rule)
        if key not in self._orphans and len(self._orphans) >= self._size:
            key, lost = (0, ""), lost._replace(container=0, rule="")
        before = self._orphans.get(key)
        self._orphans[key] = lost._replace(times=lost.times + (before.times if before else 0))
