# SPDX-License-Identifier: Apache-2.0
"""What the agent reads again after each kind of loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.abi import DROP_KEY, DROP_MAX, NO_SLOT, Drop, EventKind
from ringfence.bpf.losses import Losses, Lost
from ringfence.containers.hierarchy import CgroupDir
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.parts import Loaded, Picture
from ringfence.daemon.tracking.resync import Resync
from ringfence.export.stats import Stats
from ringfence.faults import thread_failures
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

    def lose(self, kind: EventKind, slot: int, reason: Drop = Drop.RATE_LIMIT) -> None:
        """One record more."""
        key = DROP_KEY.pack(kind, reason, slot)
        self[key] = self.get(key, 0) + 1


class World:
    """One container, with the processes `pids_`; `unused` slots are free; `clock` is the time."""

    def __init__(self) -> None:
        self.drops, self.pids_, self.unused, self.clock = FakeDrops(), list[int](), 1, 0.0
        self.slots = FakeSlots()
        self.slot = self.slots.enroll(CGROUP)
        self.registry, self.tree = Registry(self.slots), ProcessTree()
        self.registry.add(Container.unnamed(CGROUP, self.slot))
        self.done: list[Callable[[], None]] = []
        self.walks, self.taken, self.armed = 0, list[CgroupDir](), 0
        self.losses = Losses(self.drops)
        self.misses = {"task_newtask": 3, "cgroup_mkdir": 0, "every_call": 5}
        # Only the parts that are used: losses and skipped programs of the kernel, free slots.
        kernel = SimpleNamespace(losses=self.losses, program_stats=self.program_stats)
        loaded = Loaded(cast(Any, kernel), cast(Any, self), cast(Any, None))
        picture = Picture("node-1", self.registry, self.tree, Stats())
        self.resync = Resync(loaded, picture, cast(Any, self), self.done.append, clock=lambda: self.clock)

    def program_stats(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name, misses=count) for name, count in self.misses.items()]

    @property
    def repairs(self) -> dict[str, float]:
        """Repairs by kind."""
        (family,) = self.resync.samples()
        return {sample.labels["what"]: sample.value for sample in family.samples}

    def candidates(self) -> list[CgroupDir]:
        self.walks += 1
        return [CgroupDir("/rftest-late", 9, 1)]

    def take(self, found: Sequence[CgroupDir]) -> None:
        self.taken += found

    def arm(self) -> bool:
        self.armed += 1
        return True

    def pids(self) -> Mapping[int, Sequence[int]]:
        return {self.slot: self.pids_}

    def heal(self, calls: int) -> None:
        """One round, with what its thread hands back to the loop."""
        self.done.clear()
        self.resync.tick()
        wait_for(lambda: len(self.done) == calls and not self.resync.busy, "the thread")
        for work in self.done:
            work()


def test_a_lost_record_of_a_container_is_mended_from_the_kernels_table() -> None:
    """No cgroup is walked; and not again while nothing more is lost."""
    world = World()
    world.slots.enroll(88)
    world.drops.lose(EventKind.CONTAINER_CREATE, 5, Drop.RING_FULL)
    world.heal(0)
    world.heal(0)
    assert {container.cgroup_id for container in world.registry} == {CGROUP, 88}
    assert (world.walks, world.repairs["containers"]) == (0, 1)


def test_records_of_cgroups_that_were_held_back_mend_nothing() -> None:
    """A container makes as many as it likes: that must cost the agent no work."""
    world = World()
    for _ in range(3):
        world.drops.lose(EventKind.CGROUP_MKDIR, world.slot)
        world.drops.lose(EventKind.CGROUP_ATTACH, world.slot)
        world.clock += 100
        world.heal(0)
    assert (world.walks, world.armed, sum(world.repairs.values())) == (0, 0, 0)


def test_tasks_that_a_skipped_program_left_unbound_are_bound_soon() -> None:
    """At once, then every five seconds at most; not for what was skipped before, nor for other
    programs.
    """
    world, armed = World(), list[int]()
    world.misses["every_call"] += 1
    world.heal(0)
    assert (world.armed, world.walks) == (0, 0)
    for second in range(20):
        world.misses["sched_process_exec"] = second + 1
        world.clock, before = float(second), world.armed
        world.heal(0)
        armed += [second] * (world.armed - before)
    assert armed == [0, 5, 10, 15]
    assert world.walks == 0


def test_a_container_that_a_skipped_program_left_out_is_looked_for() -> None:
    """The cgroups are walked."""
    world = World()
    world.misses["cgroup_mkdir"] += 1
    world.heal(1)
    assert world.walks == 1
    assert {entry.path for entry in world.taken} == {"/rftest-late"}


def test_containers_that_found_no_slot_are_taken_in_when_one_is_free() -> None:
    """Not before; then the walk is in a thread, and each one after it waits twice as long."""
    world, walks = World(), list[int]()
    world.unused = 0
    for second in range(0, 200, 5):
        world.drops.lose(EventKind.CONTAINER_CREATE, 0xFFFFFFFF, Drop.TABLE_FULL)
        world.clock, world.unused = float(second), int(second >= 10)
        before = world.walks
        world.done.clear()
        world.resync.tick()
        wait_for(lambda: not world.resync.busy, "the thread")
        for work in world.done:
            work()
        walks += [second] * (world.walks - before)
    assert walks == [10, 15, 25, 45, 85, 165]
    assert {entry.path for entry in world.taken} == {"/rftest-late"}


def test_a_walk_that_fails_is_counted_and_the_next_loss_walks_again() -> None:
    """The healer does not believe for ever that its thread still runs."""
    world = World()
    real, before = world.candidates, thread_failures["healing-walk"]
    world.candidates = lambda: [list[CgroupDir]().pop()]  # type: ignore[method-assign]
    world.drops.lose(EventKind.CONTAINER_CREATE, 5, Drop.TABLE_FULL)
    world.heal(0)
    assert thread_failures["healing-walk"] - before == 1
    world.candidates = real  # type: ignore[method-assign]
    world.clock = 1000.0
    world.drops.lose(EventKind.CONTAINER_CREATE, 5, Drop.TABLE_FULL)
    world.heal(1)
    assert world.walks == 1


def test_tasks_that_could_not_be_bound_are_bound_by_the_iterator() -> None:
    """Memory had run out for their storage."""
    world = World()
    world.drops.lose(EventKind.PROCESS_FORK, 99, Drop.TABLE_FULL)
    world.heal(0)
    assert (world.armed, world.repairs["unbound"]) == (1, 1)


def test_without_a_thread_it_is_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork bomb takes the node's last thread, and that is when records are lost: both repairs
    are made as soon as there are threads again, without another loss.
    """
    world = World()
    world.pids_ = [int(Path("/proc/self").readlink().name)]
    world.drops.lose(EventKind.PROCESS_FORK, world.slot)
    world.drops.lose(EventKind.CONTAINER_CREATE, 5, Drop.TABLE_FULL)
    with monkeypatch.context() as nothing_left:
        nothing_left.setattr(threading.Thread, "start", no_thread)
        world.heal(0)
    world.clock = 1000.0
    world.heal(2)
    assert [process.pid for process in world.tree.of_container(CGROUP)] == world.pids_
    assert world.walks == 1


def no_thread(thread: threading.Thread) -> None:
    """What CPython raises when clone(2) fails."""
    raise RuntimeError("can't start new thread")


def test_a_lost_record_of_a_process_reads_that_container_anew() -> None:
    """This very process is taken in; one that is gone is buried; a verdict that was lost reads
    nothing.
    """
    world = World()
    world.pids_ = [int(Path("/proc/self").readlink().name)]
    world.drops.lose(EventKind.FILE_OPEN, world.slot)
    world.heal(0)
    assert len(world.tree) == 0
    world.drops.lose(EventKind.PROCESS_FORK, world.slot)
    world.heal(1)
    assert [process.pid for process in world.tree.of_container(CGROUP)] == world.pids_
    world.pids_ = []
    world.drops.lose(EventKind.PROCESS_EXIT, world.slot)
    world.heal(1)
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


def test_a_total_does_not_go_back_while_a_slot_is_freed() -> None:
    """A count that was taken from the map and not added yet is included."""
    seen: list[int] = []
    key = (int(EventKind.FILE_OPEN), int(Drop.RATE_LIMIT))

    class Watched(FakeDrops):
        def take(self, key_: bytes) -> bytes | None:
            taken = super().take(key_)
            seen.append(losses.totals()[key])
            return taken

    drops = Watched()
    losses = Losses(drops)
    drops.lose(EventKind.FILE_OPEN, 3)
    assert losses.totals()[key] == 1
    losses.retire(3)
    assert (seen, losses.totals()[key]) == ([1], 1)


def test_losses_of_an_unknown_container_are_counted_by_kind_and_reason() -> None:
    """The array beside the map: event * 8 + reason."""
    unnamed, kind = FakeDrops(), EventKind.FILE_OPEN
    losses = Losses(FakeDrops(), unnamed)
    unnamed[(kind * DROP_MAX + Drop.RING_FULL).to_bytes(4, "little")] = 7
    assert losses.totals() == {(kind, Drop.RING_FULL): 7}
    assert losses.by_slot() == {Lost(kind, Drop.RING_FULL, NO_SLOT): 7}
