# SPDX-License-Identifier: Apache-2.0
"""The memory that the agent keeps free for the kernel's entries of tasks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ringfence.daemon.health.memory_reserve import MemoryReserve, press, wanted_of

MIB = 1 << 20


class World:
    """Limits of 256 MiB; `press` turns page cache into free memory, as the kernel does."""

    def __init__(self, free: int, cache: int) -> None:
        self.limits = SimpleNamespace(memory_limit=256 * MIB, memory_free=free, memory_cache=cache)
        self.pressed: list[int] = []
        self.reserve = MemoryReserve(cast(Any, self.limits), self.press)

    def press(self, size: int) -> None:
        self.pressed.append(size)
        given_up = max(0, size - self.limits.memory_free)
        self.limits.memory_free += given_up
        self.limits.memory_cache -= given_up

    def shown(self) -> dict[str, float]:
        """The samples, by name."""
        return {sample.name: sample.value for one in self.reserve.samples() for sample in one.samples}


@pytest.mark.parametrize(
    ("limit", "wanted"), [(0, 0), (256 * MIB, 32 * MIB), (16 * MIB, 4 * MIB), (4096 * MIB, 64 * MIB)]
)
def test_the_reserve_is_an_eighth_within_bounds(limit: int, wanted: int) -> None:
    """None without a limit."""
    assert wanted_of(limit) == wanted


def test_page_cache_is_given_up_until_the_reserve_is_free() -> None:
    """A cgroup that it fills has its reserve again after one tick."""
    world = World(free=0, cache=200 * MIB)
    world.reserve.tick()
    assert world.pressed == [32 * MIB]
    assert world.shown() == {
        "ringfence_agent_memory_reserve_bytes": 32 * MIB,
        "ringfence_agent_memory_free_bytes": 32 * MIB,
    }
    world.reserve.tick()
    assert len(world.pressed) == 1


def test_what_is_not_cache_is_never_pressed_for() -> None:
    """The kernel would kill the agent."""
    world = World(free=MIB, cache=0)
    world.reserve.tick()
    assert world.pressed == []
    world = World(free=MIB, cache=10 * MIB)
    world.reserve.tick()
    assert world.pressed == [6 * MIB]


def test_without_a_limit_nothing_happens() -> None:
    """And there are no samples."""
    world = World(free=0, cache=MIB)
    world.limits.memory_limit = 0
    world.reserve.tick()
    assert world.pressed == []
    assert world.shown() == {}


def test_pressing_uses_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is only reserved costs the cgroup nothing."""
    written: list[int] = []

    class Memory:
        def __init__(self, fd: int, size: int) -> None:
            assert (fd, size) == (-1, 3 * 4096)

        def __enter__(self) -> Memory:
            return self

        def __exit__(self, *_: object) -> None:
            written.append(-1)

        def __setitem__(self, at: int, value: int) -> None:
            written.append(at)

    monkeypatch.setattr("mmap.mmap", Memory)
    press(3 * 4096)
    assert written == [0, 4096, 8192, -1]
