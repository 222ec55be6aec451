# SPDX-License-Identifier: Apache-2.0
"""Records dropped in the kernel, by event, reason and container: the `drops` map, and its history.

Slots are reused, so when one is freed, its counts move from the map to totals: they never decrease,
and never count for the wrong container. If the map is full, drops are counted in an array by event and
reason only.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from ringfence.abi import DROP_KEY, DROP_MAX, NO_SLOT

__all__ = ["Losses", "Lost"]


class Lost(NamedTuple):
    """Numbers of enum rf_event and enum rf_drop, and the container's slot."""

    event: int
    reason: int
    slot: int


class _MapLike(Protocol):
    def items(self) -> Iterator[tuple[bytes, bytes]]: ...
    def take(self, key: bytes) -> bytes | None: ...


class Losses:
    """`retire` is for the loop; everything else can be called by any thread."""

    def __init__(self, drops: _MapLike, unnamed: _MapLike | None = None) -> None:
        self._drops, self._unnamed = drops, unnamed
        self._gone: Counter[tuple[int, int]] = Counter()  # of freed slots, by event and reason
        self._reported: Counter[tuple[int, int]] = Counter()  # the last result of `totals`
        self._reporting = threading.Lock()

    def by_slot(self) -> dict[Lost, int]:
        """Returns the counts of the slots in use, and of NO_SLOT."""
        found = Counter(
            {Lost(*DROP_KEY.unpack(key)): int.from_bytes(n, "little") for key, n in self._drops.items()}
        )
        for key, number in self._unnamed.items() if self._unnamed is not None else ():
            if count := int.from_bytes(number, "little"):
                event, reason = divmod(int.from_bytes(key, "little"), DROP_MAX)
                found[Lost(event, reason, NO_SLOT)] += count
        return found

    def totals(self) -> Counter[tuple[int, int]]:
        """Returns the counts by event and reason since the agent started.

        While `retire` moves counts, they are in neither place: then the earlier, greater result is
        returned. Prometheus would interpret a decrease as a restart.
        """
        totals = Counter(self._gone)
        for lost, count in self.by_slot().items():
            totals[lost.event, lost.reason] += count
        with self._reporting:
            self._reported |= totals  # the greater of both, for each
            return Counter(self._reported)

    def retire(self, slot: int) -> None:
        """Moves the counts of a slot that is about to be freed."""
        for lost in [lost for lost in self.by_slot() if lost.slot == slot]:
            taken = self._drops.take(DROP_KEY.pack(*lost))
            self._gone[lost.event, lost.reason] += int.from_bytes(taken or b"", "little")
