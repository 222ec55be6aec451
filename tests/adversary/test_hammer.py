# SPDX-License-Identifier: Apache-2.0
"""The hammer: threads keep the deciding programs busy, while another tries what is forbidden.

A few thousand tries here; `RINGFENCE_ADVERSARY_TRIES=200000` makes a million of all five kinds, the
figure of docs/explanation/threat-model.md. What counts is a result that reaches user space: a child that is
killed in its call has none. Half of the threads stay on one CPU; all have different priorities, two of eight
of them real-time where the container may have that; the one that tries stays on a CPU half of the time.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import pytest

from tests.adversary.kinds import DOCKER, PRIV, Kind
from tests.adversary.recording import MARKS, Record, judged
from tests.adversary.world import World
from tests.support.agent import Agent
from tests.support.waiting import patience

pytestmark = MARKS

TRIES = int(os.environ.get("RINGFENCE_ADVERSARY_TRIES", "2000"))
THREADS = 8
#: without BPF-LSM each try costs the life of a child
SECONDS = 6.0 if TRIES <= 2000 else 3600.0
#: what is tried, from which kind of container
BLOWS: tuple[tuple[str, Kind], ...] = (
    ("open", DOCKER),
    ("userns", DOCKER),
    ("connect", DOCKER),
    ("mount", PRIV),
    ("enter", PRIV),
)


class Counts(NamedTuple):
    """Of one hammer: calls begun, calls that had their effect, calls that returned at all, kills."""

    tried: int
    through: int
    answered: int
    killed: int


def counts_of(output: str) -> Counts:
    """Reads the program's line."""
    found = re.search(r"tried (\d+) through (\d+) answered (\d+) killed (\d+)", output)
    assert found, output
    return Counts(*map(int, found.groups()))


def _missed(guard: Agent) -> tuple[float, float]:
    """Returns how many runs of programs the kernel has skipped: of all but backstops, and of backstops."""
    found = {
        dict(labels)["program"]: value
        for (name, labels), value in guard.metrics().items()
        if name == "ringfence_program_misses_total"
    }
    backstops = sum(value for program, value in found.items() if program.startswith("backstop_"))
    return sum(found.values()) - backstops, backstops


@pytest.mark.parametrize(("what", "kind"), BLOWS, ids=[f"{what}-{kind}" for what, kind in BLOWS])
def test_nothing_gets_through_while_programs_are_busy(
    what: str, kind: Kind, guard: Agent, world: World, record_property: Record
) -> None:
    """Whatever the others do at that time, each try is refused, or killed."""
    milliseconds = round(SECONDS * 1000)
    words = f"hammer {what} {TRIES} {THREADS} {milliseconds}"
    before = _missed(guard)
    try:
        attempt = world.hostile(kind).run(words, seconds=SECONDS + patience(20))
    finally:
        world.discard(kind)
    counts = counts_of(attempt.output)
    assert counts.tried > 0
    first, backstop = (now - then for now, then in zip(_missed(guard), before, strict=True))
    said = f"{counts.through} of {counts.tried}, {counts.killed} killed"
    record_property("hammer", f"{what} {kind}: {said}, {first:.0f} skipped, {backstop:.0f} of backstops")
    judged(record_property, f"A6 hammer of {what} {kind}", said, through=bool(counts.through))
