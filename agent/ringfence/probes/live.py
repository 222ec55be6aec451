# SPDX-License-Identifier: Apache-2.0
"""A running probe: its ring, its counters, its decoder. Closing it detaches the programs."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from ringfence.bpf.maps import Map, open_map
from ringfence.bpf.ring import Ring
from ringfence.probes.compiler import Attached
from ringfence.probes.definition import Definition
from ringfence.probes.layout import Decoded, Decoder, new_decoder
from ringfence.probes.tally import Tally

__all__ = ["DROPS", "Live", "ProbeEvent"]

#: reasons of rf_counts in ringfence.h, by their number
DROPS: Mapping[int, str] = {1: "sampled", 2: "rate_limit", 3: "ring_full", 4: "host"}
_SENT = 0
_TERM = struct.Struct("=QQ")  # struct rf_term of ringfence.h
_AHEAD_NS = 2_000_000  # longer than it takes to set the cut-over time in both versions
_SETTLED_NS = 200_000  # longer than a program runs that started before the cut-over


class ProbeEvent(NamedTuple):
    """One event for the outputs."""

    probe: Definition
    decoded: Decoded


class Live:
    """Owned by the loop, except `emitted` and `dropped`, which a scrape reads.

    It is attached, and sends no events until `begin`.
    """

    def __init__(self, probe: Definition, attached: Attached) -> None:
        """Takes over the descriptors. Raises ProbeError if a field contradicts the YAML."""
        self.probe, self._attached = probe, attached
        try:
            self.decoder: Decoder = new_decoder(probe, attached.size, attached.shape)
            self._counts: Map = open_map(attached.counts)
            self._terms: Map = open_map(attached.terms)
            self._ring = Ring(attached.ring, open_map(attached.ring).max_entries)
        except BaseException:
            attached.close()
            raise
        self.tally = Tally(probe)
        self.received = 0
        self.alerts = 0
        self.failures: Counter[str] = Counter({"decode": 0, "unattributed": 0, "internal": 0})
        self.hooks = attached.hooks
        self.seconds = attached.seconds
        self._from = 0
        self._final: dict[int, int] | None = None  # after the end
        self._earlier: dict[int, int] = {}

    def begin(self) -> None:
        """Starts sending events."""
        self._set_term(1, 0)

    def begin_after(self, before: Live) -> None:
        """Starts sending events at a cut-over time, at which the previous version stops.

        Returns after that time. Both versions get the time in advance, so no event is duplicated or lost,
        with one exception: a call that is between the two programs at the cut-over, at most one per task,
        is reported by both, or by neither if the kernel runs the newer program first.
        """
        moment = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + _AHEAD_NS
        self._set_term(moment, 0)
        before._set_term(before._from, moment)
        while (left := moment + _SETTLED_NS - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) > 0:
            time.sleep(left / 1e9)

    def _set_term(self, since: int, until: int) -> None:
        self._from = since
        self._terms.set(0, _TERM.pack(since, until))

    def count(self, *, received: int = 0, alerts: int = 0) -> None:
        """Add to the counts of this probe."""
        self.received += received
        self.alerts += alerts

    def fileno(self) -> int:
        """Returns a descriptor that is readable while events wait."""
        return self._attached.ring

    def read(self, most: int) -> list[bytes]:
        """Returns up to `most` records."""
        return self._ring.read(most)

    def _count(self) -> dict[int, int]:
        if self._final is not None:
            return self._final
        earlier = self._earlier
        return {
            number: sum(_words(self._counts.get(number))) + earlier.get(number, 0)
            for number in (_SENT, *DROPS)
        }

    @property
    def emitted(self) -> int:
        """Returns the number of events that left the kernel: received, and waiting in the ring."""
        return self._count()[_SENT]

    @property
    def dropped(self) -> dict[str, int]:
        """Returns the number of dropped events by reason."""
        count = self._count()
        return {reason: count[number] for number, reason in DROPS.items()}

    def take_over(self, before: Live) -> None:
        """Continues the counts of the previous version, which has ended: counters must not decrease."""
        self.received, self.alerts = before.received, before.alerts
        self.failures.update(before.failures)
        self._earlier = before._count()
        self.tally.take_over(before.tally)

    def detach(self) -> None:
        """Stops events; those in the ring can still be read."""
        self._final = self._count()
        self._ring.close()
        self._attached.close()


def _words(raw: bytes | None) -> memoryview:
    return memoryview(raw or b"").cast("Q")
