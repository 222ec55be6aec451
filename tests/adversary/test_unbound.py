# SPDX-License-Identifier: Apache-2.0
"""No task of a container is without its container's rules: without memory for its binding, before
the agent, from memory, orphaned, in mounts of its own, or in a runtime that executes nothing.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import Counter, EventKind
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.starvation import MemoryCgroup, memory_cgroup

pytestmark = pytest.mark.root
K = EventKind
CHILDREN, ALIVE = 10_000, 500


@pytest.fixture(params=[{"lsm": True}, {}], ids=["lsm", "calls"])
def starving(request: pytest.FixtureRequest) -> Iterator[tuple[Probes, MemoryCgroup]]:
    """Probes whose memory is charged to a cgroup that can be filled."""
    with memory_cgroup() as memory:
        memory.enter()
        with running(**request.param) as probes:
            yield probes, memory


def many(cgroup: Cgroup, program: str, victim: Path) -> tuple[int, int, int]:
    """Returns how many children were born, were refused, and did what a rule forbids."""
    victim.touch()
    done: subprocess.CompletedProcess[str] = cgroup.run(
        [program, "many", str(ALIVE), str(CHILDREN), str(victim)], capture_output=True, text=True
    )
    assert done.returncode == 0, done
    born, refused, through = map(int, re.findall(r"\d+", done.stdout))
    return born, refused, through


def test_without_memory_no_child_is_unbound(
    starving: tuple[Probes, MemoryCgroup], unbound_program: str, tmp_path: Path
) -> None:
    """Ten thousand children while page cache fills the cgroup that pays for their bindings: each is
    bound, or was never there.
    """
    probes, memory = starving
    probes.enforce(Rule(K.SYS_CHMOD, "deny"))
    with new_cgroup(LABEL) as cgroup:
        with memory.full():
            born, refused, through = many(cgroup, unbound_program, tmp_path / "victim")
        lacked = probes.counters(cgroup)[Counter.REFUSED]
        print(f"born {born} refused {refused} through {through} counted {lacked}")
        assert through == 0
        assert lacked > 0
        assert lacked >= refused
