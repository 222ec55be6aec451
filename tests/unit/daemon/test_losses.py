# SPDX-License-Identifier: Apache-2.0
"""Each loss is in the log, by number."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence import log
from ringfence.abi import Drop, EventKind
from ringfence.daemon.delivery.losses import LossLog, Place, kernel_losses, output_losses

FULL = Place("webhook-1", "queue_full")


class Scene:
    """A log of losses, with a clock of its own."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines, self.now = lines, 1000.0
        self.log = LossLog(lambda: self.now)

    def logged(self) -> list[tuple[str, str, int, int]]:
        """Where, why, the number and the total of each line."""
        records = [json.loads(line) for line in self._lines]
        return [(one["where"], one["reason"], one["number"], one["total"]) for one in records]


@pytest.fixture
def scene() -> Iterator[Scene]:
    """The log of the process goes to a list meanwhile."""
    lines: list[bytes] = []
    log.configure("warning", lines.append)
    yield Scene(lines)
    log.configure()


def test_the_first_loss_is_logged_at_once_and_nothing_where_there_is_none(scene: Scene) -> None:
    """With its number, place and reason."""
    scene.log.note({FULL: 0})
    assert scene.logged() == []
    scene.log.note({FULL: 7})
    assert scene.logged() == [("webhook-1", "queue_full", 7, 7)]


def test_a_flood_of_losses_is_one_line_a_minute_and_no_loss_is_left_out(scene: Scene) -> None:
    """The numbers add up to the total."""
    for total in range(1, 601):
        scene.log.note({FULL: total})
        scene.now += 1
    scene.log.note({FULL: 600}, last=True)
    assert len(scene.logged()) == 11
    assert sum(number for _, _, number, _ in scene.logged()) == 600


def test_another_place_or_reason_does_not_wait(scene: Scene) -> None:
    """Each has a pause of its own."""
    scene.log.note({FULL: 1})
    scene.log.note({FULL: 1, Place("kernel", "ring_full"): 4})
    assert scene.logged()[1:] == [("kernel", "ring_full", 4, 4)]


def test_losses_of_the_kernel_are_summed_by_reason() -> None:
    """A fork bomb has one line a minute, not one for each kind of event."""
    full, rate = int(Drop.RING_FULL), int(Drop.RATE_LIMIT)
    totals = {(int(EventKind.SYS_UNSHARE), full): 2, (int(EventKind.SYS_MOUNT), full): 3,
              (int(EventKind.SYS_MOUNT), rate): 5}  # fmt: skip
    losses = cast(Any, SimpleNamespace(totals=lambda: totals))
    assert kernel_losses(losses) == {Place("kernel", "ring_full"): 5, Place("kernel", "rate_limit"): 5}


def test_losses_of_lines_and_receivers_are_found() -> None:
    """By the names that the metrics use."""
    writer = SimpleNamespace(name="stdout", dropped={"disk_full": 4})
    outbox = SimpleNamespace(lost_by_reason=lambda: iter([("webhook-1", "corrupt", 2)]))
    assert output_losses(cast(Any, writer), cast(Any, outbox)) == {
        Place("stdout", "disk_full"): 4, Place("webhook-1", "corrupt"): 2
    }  # fmt: skip
