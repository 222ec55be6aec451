# SPDX-License-Identifier: Apache-2.0
"""The queue against a model: whatever happens in whatever order, put = delivered + waiting + lost."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from ringfence.export.sinks.spool import Batch, Spool


class World:
    """A queue, its receiver, and a disk that may be full. Counts over restarts of the agent."""

    def __init__(self, directory: Path, dice: random.Random) -> None:
        self.dice, self.directory = dice, directory
        self.size, self.memory = dice.choice((8192, 65536, 1 << 20)), dice.choice((500, 4000, 1 << 20))
        self.full = False
        self.put = self.lost = 0
        self.delivered: set[int] = set()
        self.batch: Batch | None = None
        self.spool = Spool(directory, self.size, self.memory)

    def append(self) -> None:
        """Some alerts."""
        for _ in range(self.dice.randrange(1, 20)):
            self.spool.append(b"%06d" % self.put + b"x" * self.dice.randrange(200))
            self.put += 1

    def take(self) -> None:
        """Begin to send a batch: in order, and later than all that was delivered."""
        if self.batch is None:
            self.batch = self.spool.take(self.dice.randrange(1, 20), self.dice.randrange(1, 4000))
            numbers = self.numbers()
            assert numbers == sorted(numbers)
            assert not numbers or numbers[0] > max(self.delivered, default=-1)

    def settle(self) -> None:
        """The receiver has it."""
        if self.batch is not None:
            self.delivered.update(self.numbers())
            self.spool.done(self.batch)
            self.batch = None

    def turn(self) -> None:
        """The disk is full, or no longer."""
        self.full = not self.full

    def restart(self) -> None:
        """Of the agent, in the middle of anything."""
        self.spool.close()
        self.lost += sum(self.spool.lost.values())
        self.batch = None
        self.spool = Spool(self.directory, self.size, self.memory)

    def numbers(self) -> list[int]:
        """Of the alerts that are on their way."""
        return [int(record[:6]) for record in self.batch.records] if self.batch else []

    def known(self) -> int:
        """The states of all alerts."""
        return len(self.delivered) + self.spool.undelivered + self.lost + sum(self.spool.lost.values())


@pytest.mark.long
@pytest.mark.parametrize("seed", range(0, 120, 4))
def test_every_alert_is_delivered_waiting_or_lost_fuzz(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """At each moment, with queues that overflow, full disks, and agents that end with a batch on its way."""
    write = os.pwrite
    runs = 40 if os.environ.get("RINGFENCE_FUZZ") else 4
    for number in range(seed, seed + runs):
        world = World(tmp_path / str(number), random.Random(number))

        def pwrite(*arguments: Any, world: World = world) -> int:
            if world.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(*arguments)

        monkeypatch.setattr(os, "pwrite", pwrite)
        acts = [world.append] * 10 + [world.take] * 4 + [world.settle] * 4 + [world.turn, world.restart]
        for _ in range(world.dice.randrange(50, 300)):
            world.dice.choice([*acts, world.spool.sync])()
            assert world.known() == world.put
        world.full = False
        world.settle()
        while batch := world.spool.take(50, 1 << 20):
            world.batch = batch
            world.settle()
        assert len(world.delivered) + world.lost + sum(world.spool.lost.values()) == world.put
        world.spool.close()
