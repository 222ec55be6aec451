# SPDX-License-Identifier: Apache-2.0
"""A probe that runs: its ring, its counters, its decoder. Closing it detaches the programs."""

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
_AHEAD_NS = 2_000_000  # longer than it takes to tell both versions
_SETTLED_NS = 200_000  # longer than a program takes that began before the moment


class ProbeEvent(NamedTuple):
    """One event on its way out."""

    probe: Definition
    decoded: Decoded


class Live:
    """Owned by the loop, but for `emitted` and `dropped`, which a scrape may ask.

    It is attached, and silent until `begin`.
    """

    def __init__(self, probe: Definition, attached: Attached) -> None:
        """Takes over the descriptors. Raises ProbeError where a field is not what the YAML says."""
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
        """Events from now on."""
        self._speak(1, 0)

    def begin_after(self, before: Live) -> None:
        """Events from a moment on that is the last of the version before. Returns when it has passed.

        Both versions are told of that moment before it comes: no event is told twice, and none not at all.
        But a call that is between the two programs at that moment, one of each task at most, is told by both,
        or by neither where the kernel runs the newer program first: neither can know where the other is.
        """
        moment = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + _AHEAD_NS
        self._speak(moment, 0)
        before._speak(before._from, moment)
        while (left := moment + _SETTLED_NS - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) > 0:
            time.sleep(left / 1e9)

    def _speak(self, since: int, until: int) -> None:
        self._from = since
        self._terms.set(0, _TERM.pack(since, until))

    def count(self, *, received: int = 0, alerts: int = 0) -> None:
        """Add to the counts of this probe."""
        self.received += received
        self.alerts += alerts

    def fileno(self) -> int:
        """Readable while events wait."""
        return self._attached.ring

    def read(self, most: int) -> list[bytes]:
        """Up to so many records."""
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
        """Events that left the kernel: received, and what still waits in the ring."""
        return self._count()[_SENT]

    @property
    def dropped(self) -> dict[str, int]:
        """Events that did not, by reason."""
        count = self._count()
        return {reason: count[number] for number, reason in DROPS.items()}

    def take_over(self, before: Live) -> None:
        """Go on from the counts of the version before, which has ended: counters do not sink."""
        self.received, self.alerts = before.received, before.alerts
        self.failures.update(before.failures)
        self._earlier = before._count()
        self.tally.take_over(before.tally)

    def detach(self) -> None:
        """No event comes after this; those in the ring can still be read."""
        self._final = self._count()
        self._ring.close()
        self._attached.close()


def _words(raw: bytes | None) -> memoryview:
    return memoryview(raw or b"").cast("Q")
