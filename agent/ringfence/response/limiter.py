# SPDX-License-Identifier: Apache-2.0
"""Keeps one container's loop from drowning the alerts of all others: a token bucket per container and rule.

Suppressed alerts are counted, and the count goes out with the next alert of the same kind, or with `flush`.
This limits reporting only: the verdict was carried out in the kernel.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Decision", "Limiter", "Suppressed"]

Key = tuple[int, str]  # cgroup id of the container, policy/rule


class Decision(NamedTuple):
    """`suppressed`: how many alerts of this container and rule were held back since the last that passed."""

    passes: bool
    suppressed: int


class Suppressed(NamedTuple):
    """Alerts that were held back and that no later alert told of."""

    container: int
    rule: str
    times: int
    what: object  # of the last of them, as given to `admit`


class _Bucket:
    __slots__ = ("passed", "passed_ns", "seen_ns", "suppressed", "tokens", "what")

    def __init__(self, tokens: float, now: int) -> None:
        self.tokens, self.seen_ns = tokens, now
        self.suppressed = 0
        self.passed: object = None  # what the last alert that passed was about, and when that was
        self.passed_ns = 0
        self.what: object = None


class Limiter:
    """`rate` alerts a second and `burst` at once, for each container and rule.

    What the last alert was about is not told again within `same_ns`. At most `size` pairs are remembered:
    beyond that the longest quiet one is forgotten.
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
        """Pairs of container and rule that are remembered, and may be."""
        return len(self._buckets), self._size

    def __len__(self) -> int:
        return len(self._buckets)

    def may_pass(self, container: int, rule: str) -> bool:
        """Whether an alert of this pair could go out now, whatever it is about. Cheap: an alert that cannot
        need not be put together; `hold` counts it."""
        bucket = self._buckets.get((container, rule))
        return bucket is None or self._fill(bucket, self._now_ns()) >= 1.0

    def hold(self, container: int, rule: str, what: object = None) -> Decision:
        """Count an alert that does not go out."""
        now, key = self._now_ns(), (container, rule)
        bucket = self._buckets.get(key) or self._new(key, now)
        self._buckets.move_to_end(key)
        self._fill(bucket, now)
        return self._held(bucket, what)

    def _held(self, bucket: _Bucket, what: object) -> Decision:
        bucket.suppressed += 1
        bucket.what = what
        self.suppressed += 1
        return Decision(False, bucket.suppressed)

    def _fill(self, bucket: _Bucket, now: int) -> float:
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.seen_ns) * self._rate_ns)
        bucket.seen_ns = now
        return bucket.tokens

    def admit(self, container: int, rule: str, same: object, what: object = None) -> Decision:
        """May this alert go out? `same` says what it is about: equal twice in a row is a repetition."""
        now, key = self._now_ns(), (container, rule)
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._new(key, now)
        else:
            self._buckets.move_to_end(key)
        repeated = bucket.passed == same and now - bucket.passed_ns < self._same_ns
        if self._fill(bucket, now) < 1.0 or repeated:
            return self._held(bucket, what)
        bucket.tokens -= 1.0
        bucket.passed, bucket.passed_ns, bucket.what = same, now, None
        held, bucket.suppressed = bucket.suppressed, 0
        return Decision(True, held)

    def flush(self, quiet_ns: int = 5 * 10**9) -> list[Suppressed]:
        """What was held back and no later alert will tell: of pairs quiet for `quiet_ns`, or forgotten."""
        now = self._now_ns()
        told = list(self._orphans.values())
        self._orphans.clear()
        for (container, rule), bucket in self._buckets.items():
            if now - bucket.seen_ns < quiet_ns:
                break  # the rest was seen later
            if bucket.suppressed:
                told.append(Suppressed(container, rule, bucket.suppressed, bucket.what))
                bucket.suppressed, bucket.what = 0, None
        self._forget(now)
        return told

    def _forget(self, now: int) -> None:
        """A bucket that is full again and whose last alert may be told again is as good as a new one."""
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

    def _orphan(self, held: Suppressed) -> None:
        """Keep the count of a forgotten pair; beyond `size` of them, in one sum for all (container 0)."""
        key = (held.container, held.rule)
        if key not in self._orphans and len(self._orphans) >= self._size:
            key, held = (0, ""), held._replace(container=0, rule="")
        before = self._orphans.get(key)
        self._orphans[key] = held._replace(times=held.times + (before.times if before else 0))
