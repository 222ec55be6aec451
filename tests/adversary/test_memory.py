# SPDX-License-Identifier: Apache-2.0
"""Children of a container when the agent has no memory left for the kernel's entries of tasks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversary.kinds import DOCKER
from tests.adversary.recording import Record, judged
from tests.adversary.test_hammer import counts_of
from tests.adversary.world import new_world
from tests.support import force
from tests.support.agent import running_agent
from tests.support.cgroups import PREFIX, is_pure_v2
from tests.support.policies import PACK

pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("runc", "gcc"),
    pytest.mark.filterwarnings("ignore:record_property"),
]

MEMORY = 256 << 20  # limit of the agent in bytes, as the chart has it


@contextlib.contextmanager
def _limited(pid: int) -> Iterator[Path]:
    """A cgroup with a memory limit for a process."""
    cgroup = Path("/sys/fs/cgroup") / f"{PREFIX}limited"
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    cgroup.mkdir()
    try:
        (cgroup / "memory.max").write_text(str(MEMORY))
        (cgroup / "cgroup.procs").write_text(str(pid))
        yield cgroup
    finally:
        Path("/sys/fs/cgroup/cgroup.procs").write_text(str(pid))
        cgroup.rmdir()


def _fill(cgroup: Path) -> int:
    """Reads files in that cgroup until its page cache has reached the limit. Returns its size."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            (cgroup / "cgroup.procs").write_text("0")
            left = 2 * MEMORY
            for file in sorted(Path("/usr/lib").rglob("*.so*")):
                if left > 0 and file.is_file():
                    left -= len(file.read_bytes())
        os._exit(0)
    os.waitpid(child, 0)
    return int((cgroup / "memory.current").read_text())


def test_children_are_guarded_when_the_agents_memory_is_full(tmp_path: Path, record_property: Record) -> None:
    """Page cache fills its cgroup; then each of many children is refused, or killed, or not created."""
    if not is_pure_v2() or not force.in_guest():
        force.elsewhere("needs a hierarchy of version 2 only, in a virtual machine")
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(new_world(tmp_path / "world"))
        flags = {"self-defence": "deny"}
        agent = stack.enter_context(
            running_agent(
                tmp_path / "agent", policies=[PACK], mode="enforce", patterns=[f"{PREFIX}adv-*"], flags=flags
            )
        )
        cgroup = stack.enter_context(_limited(agent.pid))
        stack.callback(world.close)
        size = _fill(cgroup)
        attempt = world.hostile(DOCKER).run("children 6000 20000", seconds=40)
        counts = counts_of(attempt.output)
        said = f"{counts.through} of {counts.tried}, {size >> 20} MiB charged"
        assert counts.tried > 0
        judged(record_property, "A2 children docker", said, through=bool(counts.through))
