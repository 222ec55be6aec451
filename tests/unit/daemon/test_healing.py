# SPDX-License-Identifier: Apache-2.0
"""Which loss makes the agent read what anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ringfence.abi import DROP_KEY, Drop, EventKind
from ringfence.bpf.losses import Losses
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.healing import Healer
from tests.support.waiting import wait_for
from tests.unit.containers.fakes import FakeSlots

CGROUP = 77


class FakeDrops(dict[bytes, int]):
    """The map of drops."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:  # type: ignore[override]
        return iter([(key, count.to_bytes(8, "little")) for key, count in super().items()])

    def take(self, key: bytes) -> bytes | None:
        count = self.pop(key, None)
        return None if count is None else count.to_bytes(8, "little")

    def lose(self, kind: EventKind, slot: int) -> None:
        """One record more."""
        key = DROP_KEY.pack(kind, Drop.RATE_LIMIT, slot)
        self[key] = self.get(key, 0) + 1


class World:
    """A healer of one container, whose processes are `pids`."""

    def __init__(self) -> None:
        self.drops, self.adoptions, self.pids = FakeDrops(), 0, list[int]()
        slots = FakeSlots()
        self.slot = slots.enroll(CGROUP)
        self.registry, self.tree = Registry(slots), ProcessTree()
        self.registry.add(Container.unnamed(CGROUP, self.slot))
        self.done: list[Callable[[], None]] = []
        self.losses = Losses(self.drops)
        self.healer = Healer(
            self.losses, self.registry, self.tree, self.adopt, lambda _: self.pids, self.done.append
        )

    def adopt(self) -> None:
        """Count."""
        self.adoptions += 1

    def heal(self, calls: int) -> None:
        """One round, with what its thread hands back to the loop."""
        self.done.clear()
        self.healer.tick()
        wait_for(lambda: len(self.done) == calls, "the thread")
        for work in self.done:
            work()


def test_a_lost_record_of_a_container_walks_the_cgroups_once() -> None:
    """And not again while nothing more is lost."""
    world = World()
    world.drops.lose(EventKind.CONTAINER_CREATE, 5)
    world.heal(0)
    world.heal(0)
    assert (world.adoptions, world.healer.repairs["containers"]) == (1, 1)
    world.drops.lose(EventKind.CGROUP_MKDIR, world.slot)
    world.heal(0)
    assert world.adoptions == 2


def test_a_lost_record_of_a_process_reads_that_container_anew() -> None:
    """This very process is taken in; one that is gone is buried; a verdict that was lost reads nothing."""
    world = World()
    world.pids = [int(Path("/proc/self").readlink().name)]
    world.drops.lose(EventKind.FILE_OPEN, world.slot)
    world.heal(0)
    assert len(world.tree) == 0
    world.drops.lose(EventKind.PROCESS_FORK, world.slot)
    world.heal(2)
    assert [process.pid for process in world.tree.of_container(CGROUP)] == world.pids
    world.pids = []
    world.drops.lose(EventKind.PROCESS_EXIT, world.slot)
    world.heal(2)
    assert (len(world.tree), world.tree.dead) == (0, 1)


def test_a_slot_that_is_free_leaves_its_counts_to_the_totals() -> None:
    """The next container in it begins with none."""
    world = World()
    world.drops.lose(EventKind.FILE_OPEN, world.slot)
    world.drops.lose(EventKind.FILE_OPEN, world.slot + 1)
    key = (int(EventKind.FILE_OPEN), int(Drop.RATE_LIMIT))
    assert world.losses.totals()[key] == 2
    world.losses.retire(world.slot)
    assert [lost.slot for lost in world.losses.by_slot()] == [world.slot + 1]
    assert world.losses.totals()[key] == 2
