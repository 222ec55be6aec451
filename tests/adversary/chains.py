# SPDX-License-Identifier: Apache-2.0
"""Chains of processes that die for one call each (chain.c), against an agent's maps and links."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ringfence.bpf import _libbpf
from tests.kernel.tamper import Target, id_of
from tests.support.cgroups import Cgroup, new_cgroup

__all__ = ["CHAINS", "HOWS", "Chain", "through"]

HOWS = ("turns", "rush", "threads")
_SPOILED = 63  # the profile that chain.c writes


class Chain(NamedTuple):
    """`pin` is that of what is attacked; `state` reads what must not change."""

    what: str
    pin: str
    state: Callable[[Target, Cgroup], object]
    by_pin: bool = False


def _no_generation(target: Target, _cgroup: Cgroup) -> object:
    """Returns True if no rules are in force: chain.c writes 0. The agent itself only counts it up."""
    with target.map("generation") as found:
        return found.get_int(0) == 0


def _owner(target: Target, cgroup: Cgroup) -> object:
    with target.map("containers") as found:
        return found.get(cgroup.id)


def _profile(target: Target, cgroup: Cgroup) -> object:
    with target.map("containers") as owners, target.map("slots") as slots:
        return _SPOILED in struct.unpack_from("=2I", slots.get(owners.get_int(cgroup.id)) or b"", 16)


def a_cgroup_link(target: Target) -> Path:
    """The pin of a link that can be detached."""
    links = (target.pins / "links").iterdir()
    return next(path for path in sorted(links) if "cgroup_connect4" in path.name)


def _attached(target: Target, _cgroup: Cgroup) -> object:
    fd = _libbpf.get_pinned(str(a_cgroup_link(target)))
    try:
        return bool(struct.unpack_from("=Q", _libbpf.info(fd, 32), 16)[0])
    finally:
        os.close(fd)


CHAINS = (
    Chain("update", "maps/generation", _no_generation),
    Chain("update-batch", "maps/generation", _no_generation),
    Chain("load", "maps/generation", _no_generation),
    Chain("pin-update", "maps/generation", _no_generation, by_pin=True),
    Chain("pin-load", "maps/generation", _no_generation, by_pin=True),
    Chain("delete", "maps/containers", _owner),
    Chain("take", "maps/containers", _owner),
    Chain("mmap", "maps/slots", _profile),
    Chain("detach", "", _attached),
)


def through(target: Target, program: str, chain: Chain, how: str, rounds: int) -> int:
    """Returns in how many rounds the chain had an effect. Each round is a container of its own."""
    return sum(_is_through(target, program, chain, how) for _ in range(rounds))


def _is_through(target: Target, program: str, chain: Chain, how: str) -> bool:
    with new_cgroup("victim") as cgroup:
        assert cgroup.run(["/bin/true"]).returncode == 0
        pin = target.pins / chain.pin if chain.pin else a_cgroup_link(target)
        before = chain.state(target, cgroup)
        path = str(pin) if chain.by_pin else ""
        key = cgroup.id if chain.pin == "maps/containers" else 0
        cgroup.run([program, how, chain.what, str(id_of(pin)), path, str(key)], capture_output=True)
        if chain.state(target, cgroup) == before:
            return False
        _wait_for_repair(lambda: chain.state(target, cgroup) == before)
        return True


def _wait_for_repair(is_repaired: Callable[[], bool]) -> None:
    """The watchdog repairs some of it."""
    end = time.monotonic() + 3
    while not is_repaired() and time.monotonic() < end:
        time.sleep(0.05)
