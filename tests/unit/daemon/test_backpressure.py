# SPDX-License-Identifier: Apache-2.0
"""The rate of activity goes down before the agent falls behind, and comes back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.daemon.health.backpressure import Backpressure
from ringfence.daemon.startup.resource_limits import Load, ResourceLimits


class FakeRing:
    """A ring of 1,000 bytes."""

    waiting = 0

    def pending(self) -> int:
        return self.waiting


class FakeMap(dict[int, int]):
    """An array map of the kernel."""

    def set(self, key: int, value: int) -> None:
        self[key] = value


def limits(load: Callable[[], Load]) -> ResourceLimits:
    """Limits of the agent, and how near it is to them."""
    return cast(ResourceLimits, SimpleNamespace(load=load, memory_limit=0, cpus=0, throttled_seconds=0))


def calm() -> ResourceLimits:
    """Limits that are far away."""
    return limits(Load)


def shown(pressure: Backpressure) -> float:
    """The metric."""
    families = {family.name: family for family in pressure.samples()}
    return families["ringfence_activity_halvings"].samples[0].value


def test_it_halves_while_the_ring_is_half_full_and_doubles_when_it_is_calm() -> None:
    """One step per round down, one step per ten calm rounds up; kernel and metric are updated each
    time.
    """
    ring, table = FakeRing(), FakeMap()
    pressure = Backpressure(cast(Any, ring), 1000, cast(Any, table), calm())
    ring.waiting = 501
    for _ in range(3):
        pressure.tick()
    assert (table[0], shown(pressure)) == (3, 3)
    ring.waiting = 300  # neither: it stays
    for _ in range(30):
        pressure.tick()
    assert table[0] == 3
    ring.waiting = 0
    for _ in range(30):
        pressure.tick()
    assert (table[0], shown(pressure)) == (0, 0)


def test_it_never_halves_without_end() -> None:
    """A ring that stays full does not make the rate zero."""
    ring, table = FakeRing(), FakeMap()
    ring.waiting = 1000
    pressure = Backpressure(cast(Any, ring), 1000, cast(Any, table), calm())
    for _ in range(100):
        pressure.tick()
    assert table[0] == 8


@pytest.mark.parametrize(("near", "why"), [(Load(memory=0.95), "memory"), (Load(throttled=0.4), "cpu")])
def test_it_halves_when_its_own_limits_are_near(near: Load, why: str) -> None:
    """Memory or CPU time of the agent's cgroup, with a ring that is empty; and free memory is
    returned.
    """
    ring, table, relieved = FakeRing(), FakeMap(), list[int]()
    now = [near]
    pressure = Backpressure(
        cast(Any, ring), 1000, cast(Any, table), limits(lambda: now[0]), lambda: relieved.append(1)
    )
    pressure.tick()
    assert table[0] == shown(pressure) == 1
    assert bool(relieved) is (why == "memory")
    now[0] = Load(memory=0.85, throttled=0.1)  # neither near nor calm
    for _ in range(30):
        pressure.tick()
    assert table[0] == 1
    now[0] = Load()
    for _ in range(10):
        pressure.tick()
    assert table[0] == 0
