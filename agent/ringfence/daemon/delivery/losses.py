# SPDX-License-Identifier: Apache-2.0
"""Logs each loss by number: of records in the kernel, of lines, of alerts for receivers.

The metrics count the same. The log is what remains of an agent that ended before it was scraped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ringfence import log
from ringfence.export.families import reason_label

if TYPE_CHECKING:
    from ringfence.bpf.losses import Losses
    from ringfence.daemon.delivery.outputs import NoOutbox
    from ringfence.export.jsonl import LineWriter
    from ringfence.export.sinks.outbox import Outbox

__all__ = ["LossLog", "Place", "kernel_losses", "output_losses"]

_PAUSE = 60.0  # seconds between two lines about one place and reason


class Place(NamedTuple):
    """Where something was lost, and why."""

    where: str
    reason: str


class LossLog:
    """One line for each place and reason, and at most one a minute, with the number since the last line."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[Place, tuple[int, float]] = {}  # the number logged so far, and when
        self._log = log.get_logger("losses")

    def note(self, totals: Mapping[Place, int], *, last: bool = False) -> None:
        """Logs what was lost since the last line. `last`: without a pause, because the agent ends."""
        now = self._clock()
        for place, total in totals.items():
            logged, at = self._logged.get(place, (0, now - _PAUSE))
            if total > logged and (last or now - at >= _PAUSE):
                self._logged[place] = total, now
                self._log.warning(
                    "lost", where=place.where, reason=place.reason, number=total - logged, total=total
                )


def kernel_losses(losses: Losses) -> Counter[Place]:
    """Returns the records that did not leave the kernel, by reason."""
    found: Counter[Place] = Counter()
    for (_, reason), count in losses.totals().items():
        found[Place("kernel", reason_label(reason))] += count
    return found


def output_losses(writer: LineWriter, outbox: Outbox | NoOutbox) -> Counter[Place]:
    """Returns the lines that were not written, and the alerts that no receiver will get."""
    found = Counter({Place(writer.name, reason): count for reason, count in dict(writer.dropped).items()})
    for receiver, reason, count in outbox.lost_by_reason():
        found[Place(receiver, reason)] += count
    return found
