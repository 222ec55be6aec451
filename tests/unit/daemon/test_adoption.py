# SPDX-License-Identifier: Apache-2.0
"""When the agent looks again at tasks that are not armed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.abi import UNARMED_ENTRANTS
from ringfence.bpf.kernel import Adopted, AdoptionRound
from ringfence.daemon.tracking import adoption
from ringfence.daemon.tracking.adoption import Adoption

NOTHING = AdoptionRound([])


class World:
    """A kernel whose iterator gives `rounds`, the last one for ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rounds: AdoptionRound) -> None:
        self.rounds, self.looks, self.entered = list(rounds), 0, 0
        monkeypatch.setattr(adoption, "own_cgroups", lambda hierarchy: frozenset())
        monkeypatch.setattr(adoption, "patterns_for", lambda patterns, known: ())
        monkeypatch.setattr(adoption, "Adopter", lambda *_: SimpleNamespace(armed=lambda pids: 0))
        predecessor = SimpleNamespace(refresh=lambda: None, owner_of=lambda pid: 0)
        monkeypatch.setattr(adoption, "PredecessorTasks", lambda lent: predecessor)
        config = SimpleNamespace(patterns=(), known_names=True)
        node = SimpleNamespace(hierarchy=None, config=config)
        loaded = SimpleNamespace(kernel=self, slots=None)
        tracker = SimpleNamespace(registry=None, adopted=lambda pids: None)
        self.adoption = Adoption(cast(Any, node), cast(Any, loaded), cast(Any, tracker))

    def map(self, name: str) -> World:
        return self

    def items(self) -> list[tuple[bytes, bytes]]:
        return []

    def get_int(self, key: int) -> int:
        assert key == UNARMED_ENTRANTS
        return self.entered

    def adopt(self) -> AdoptionRound:
        self.looks += 1
        return self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]

    def ticks(self, count: int) -> int:
        """How often the iterator runs in some seconds."""
        before = self.looks
        for _ in range(count):
            self.adoption.tick()
        return self.looks - before

    def unarmed(self) -> dict[str, float]:
        """The metric, by reason."""
        (family,) = self.adoption.samples()
        return {sample.labels["reason"]: sample.value for sample in family.samples}


def test_nothing_is_looked_at_while_nothing_enters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The iterator costs time on nodes with many tasks."""
    world = World(monkeypatch, NOTHING)
    assert world.ticks(10) == 0
    world.entered = 1
    assert world.ticks(10) == 1


def test_a_task_that_waits_is_looked_at_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is armed, and that is seen by one look more."""
    waits = AdoptionRound([], waiting=1)
    world = World(monkeypatch, waits, waits, waits, AdoptionRound([Adopted(5, 5, 0)]), NOTHING)
    world.entered = 1
    assert world.ticks(3) == 3
    assert world.unarmed() == {"left_root": 1, "preparing": 0, "no_memory": 0}
    assert world.ticks(10) == 2
    assert world.unarmed() == {"left_root": 0, "preparing": 0, "no_memory": 0}


def test_a_runtime_that_prepares_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tasks stay in a container's cgroup and in the host's mounts."""
    world = World(monkeypatch, AdoptionRound([], entering=1))
    world.entered = 1
    assert world.ticks(1) == 1
    assert world.ticks(9) == 3


def test_tasks_without_memory_are_tried_again_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """And reported until they are bound."""
    world = World(monkeypatch, AdoptionRound([], failed=2))
    world.adoption.arm()
    assert world.unarmed()["no_memory"] == 2
    assert world.ticks(3) >= 3
    world.rounds = [NOTHING]
    world.ticks(2)
    assert world.unarmed()["no_memory"] == 0
    assert world.ticks(5) == 0


def test_the_start_waits_until_no_task_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for ever."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", sleep)
    waits = AdoptionRound([], waiting=1)
    world = World(monkeypatch, waits, waits, waits, NOTHING)
    world.adoption.arm()
    world.adoption.settle()
    assert now[0] == pytest.approx(0.3)
    world.rounds = [waits]
    world.adoption.arm()
    world.adoption.settle()
    assert 4.0 < now[0] < 4.6
