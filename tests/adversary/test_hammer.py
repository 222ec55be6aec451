# SPDX-License-Identifier: Apache-2.0
"""The hammer: threads keep the deciding programs busy, while another tries what is forbidden.

A few thousand tries here; `RINGFENCE_ADVERSARY_TRIES=1000000` for the figure of docs/threat-model.md.
What counts is a result that reaches user space: a child that is killed in its call has none.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import pytest

from tests.adversary.kinds import DOCKER, PRIV, Kind
from tests.adversary.recording import MARKS, Record, judged
from tests.adversary.world import World
from tests.support.waiting import patience

pytestmark = MARKS

TRIES = int(os.environ.get("RINGFENCE_ADVERSARY_TRIES", "2000"))
THREADS = 4
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
    """Of one hammer: calls begun, calls that had their effect, calls that returned at all."""

    tried: int
    through: int
    answered: int


def counts_of(output: str) -> Counts:
    """Reads the program's line."""
    found = re.search(r"tried (\d+) through (\d+) answered (\d+)", output)
    assert found, output
    return Counts(*map(int, found.groups()))


@pytest.mark.parametrize(("what", "kind"), BLOWS, ids=[f"{what}-{kind}" for what, kind in BLOWS])
def test_nothing_gets_through_while_programs_are_busy(
    what: str, kind: Kind, world: World, record_property: Record
) -> None:
    """Whatever the others do at that time, each try is refused, or killed."""
    milliseconds = round(SECONDS * 1000)
    words = f"hammer {what} {TRIES} {THREADS} {milliseconds}"
    try:
        attempt = world.hostile(kind).run(words, seconds=SECONDS + patience(20))
    finally:
        world.discard(kind)
    counts = counts_of(attempt.output)
    assert counts.tried > 0
    said = f"{counts.through} of {counts.tried}"
    judged(record_property, f"A6 hammer of {what} {kind}", said, through=bool(counts.through))
