# SPDX-License-Identifier: Apache-2.0
"""Records that did not leave the kernel, by event, reason and container: the `drops` map, and its history.

Slots are reused, so when one is freed, its counts are moved from the map to totals: they never decrease, and
never count for the wrong container. Losses that the map had no room for are in an array beside it, by event
and reason alone.
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
    """`retire` is for the loop; everything else may be asked by any thread."""

    def __init__(self, drops: _MapLike, unnamed: _MapLike | None = None) -> None:
        self._drops, self._unnamed = drops, unnamed
        self._gone: Counter[tuple[int, int]] = Counter()  # of slots that were freed, by event and reason
        self._told: Counter[tuple[int, int]] = Counter()  # what `totals` gave last
        self._telling = threading.Lock()

    def by_slot(self) -> dict[Lost, int]:
        """Of the slots that are in use, and of none (NO_SLOT)."""
        found = Counter(
            {Lost(*DROP_KEY.unpack(key)): int.from_bytes(n, "little") for key, n in self._drops.items()}
        )
        for key, number in self._unnamed.items() if self._unnamed is not None else ():
            if count := int.from_bytes(number, "little"):
                event, reason = divmod(int.from_bytes(key, "little"), DROP_MAX)
                found[Lost(event, reason, NO_SLOT)] += count
        return found

    def totals(self) -> Counter[tuple[int, int]]:
        """By event and reason, since the agent began.

        What `retire` has in its hands at this moment is in neither place: then the answer is that of before,
        as a counter that goes back means to Prometheus that all of it happened anew.
        """
        totals = Counter(self._gone)
        for lost, count in self.by_slot().items():
            totals[lost.event, lost.reason] += count
        with self._telling:
            self._told |= totals  # the greater of both, for each
            return Counter(self._told)

    def retire(self, slot: int) -> None:
        """A slot is about to be free."""
        for lost in [lost for lost in self.by_slot() if lost.slot == slot]:
            taken = self._drops.take(DROP_KEY.pack(*lost))
            self._gone[lost.event, lost.reason] += int.from_bytes(taken or b"", "little")
