# SPDX-License-Identifier: Apache-2.0
"""Children of a container when the agent has no memory left for the kernel's entries of tasks."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from sysconfig import get_config_var

from tests.adversary.kinds import DOCKER
from tests.adversary.recording import MARKS, Record, judged
from tests.adversary.test_hammer import counts_of
from tests.adversary.world import guarding, new_world
from tests.support import force
from tests.support.cgroups import is_pure_v2
from tests.support.starvation import MemoryCgroup, memory_cgroup

pytestmark = MARKS

MEMORY = 256 << 20  # limit of the agent in bytes, as the chart has it


def _fill(memory: MemoryCgroup) -> int:
    """Reads files in that cgroup until its page cache has reached the limit. Returns its size."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            memory.enter()
            left = 2 * MEMORY
            # One directory: a guest's file server keeps each file open that was looked at.
            for file in sorted(Path("/usr/lib", get_config_var("MULTIARCH")).glob("*.so*")):
                if left > 0 and not file.is_symlink():
                    left -= len(file.read_bytes())
        os._exit(0)
    os.waitpid(child, 0)
    return memory.usage


def test_children_are_guarded_when_the_agents_memory_is_full(tmp_path: Path, record_property: Record) -> None:
    """Page cache fills its cgroup; then each of many children is refused, or killed, or not created."""
    if not is_pure_v2() or not force.in_guest():
        force.elsewhere("needs a hierarchy of version 2 only, in a virtual machine")
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(new_world(tmp_path / "world"))
        memory = stack.enter_context(memory_cgroup())  # removed when the agent has ended
        agent = stack.enter_context(guarding(tmp_path / "agent"))
        memory.limit(MEMORY)
        stack.callback(memory.limit, None)
        memory.enter(agent.pid)
        stack.callback(world.close)
        size = _fill(memory)
        assert memory.peak > MEMORY * 9 // 10
        attempt = world.hostile(DOCKER).run("children 6000 20000", seconds=40)
        counts = counts_of(attempt.output)
        said = f"{counts.through} of {counts.tried}, {size >> 20} MiB charged"
        assert counts.tried > 0
        judged(record_property, "A2 children docker", said, through=bool(counts.through))
