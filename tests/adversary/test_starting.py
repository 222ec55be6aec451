# SPDX-License-Identifier: Apache-2.0
"""Attacks that begin before the agent, or when it has no memory left.

Each needs an agent of its own. The attempt is a new user namespace, which every pack forbids: it
shows if the process is under any rule.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adversary.attack import STOPPED, THROUGH
from tests.adversary.container import Hostile, new_hostile
from tests.adversary.effects import own_userns
from tests.adversary.expected import is_expected, tier_here
from tests.adversary.kinds import ALL, CAPS, DOCKER, PRIV, Kind, container_config
from tests.adversary.test_hammer import counts_of
from tests.adversary.world import World, new_round, new_world
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, is_pure_v2
from tests.support.policies import PACK

Record = Callable[[str, object], None]
pytestmark = [
    pytest.mark.root,
    pytest.mark.needs("runc", "gcc"),
    pytest.mark.filterwarnings("ignore:record_property"),
]

#: what the first process makes of itself before the agent starts, and what that needs
FIRST: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    ("", ALL),  # the benign form: it is found, and guarded
    ("memory", ALL),
    ("apart", (CAPS, PRIV)),
    ("orphan", (PRIV,)),
)
CASES = [(first, kind) for first, kinds in FIRST for kind in kinds]
NAMES = [f"{first or 'plain'}-{kind}" for first, kind in CASES]
MEMORY = 256 << 20  # limit of the agent in bytes, as the chart has it


def _agent(directory: Path) -> contextlib.AbstractContextManager[Agent]:
    flags = {"self-defence": "deny", "containers-adopt": "yes"}
    return running_agent(directory, policies=[PACK], mode="enforce", patterns=[f"{PREFIX}adv-*"], flags=flags)


def _record(record: Record, key: str, how: str, *, through: bool) -> None:
    tier = tier_here()
    record("verdict", json.dumps([tier, key, THROUGH if through else STOPPED, how, ""]))
    expected = is_expected(tier, os.environ.get("RINGFENCE_VM", "here"), key)
    assert expected in ("may", "yes" if through else "no"), how


class Before:
    """Containers that were there before the agent, by what their first process is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.containers: dict[tuple[str, Kind], Hostile] = {}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Before]:
    """All containers, then the agent."""
    force.need_root()
    directory = tmp_path_factory.mktemp("before")
    with contextlib.ExitStack() as stack:
        world = stack.enter_context(new_world(directory))
        made = Before(world)
        for first, kind in CASES:
            config = container_config(world.root, kind, world.binds(kind))
            config["process"]["args"] = ["/bin/adversary", *([first] if first else []), "serve"]
            label = f"adv-{first or 'plain'}-{kind}"
            hostile = stack.enter_context(new_hostile(directory / "first", config, label))
            made.containers[first, kind] = hostile
        stack.enter_context(_agent(directory / "agent"))
        yield made


@pytest.mark.parametrize(
    ("first", "kind"), CASES, ids=[f"{first or 'plain'}-{kind}" for first, kind in CASES]
)
def test_a_container_from_before_the_agent_is_guarded(
    first: str, kind: Kind, before: Before, record_property: Record
) -> None:
    """Whatever its first process made of itself."""
    with new_round(before.world, before.containers[first, kind]) as one:
        one.run("userns")
        through = own_userns(one)
        name = f"first process: {first or 'plain'}"
        _record(record_property, f"A1 {name} {kind}", one.attempt.how, through=through)


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
        agent = stack.enter_context(_agent(tmp_path / "agent"))
        cgroup = stack.enter_context(_limited(agent.pid))
        stack.callback(world.close)
        size = _fill(cgroup)
        attempt: Any = world.hostile(DOCKER).run("children 6000 20000", seconds=40)
        counts = counts_of(attempt.output)
        said = f"{counts.through} of {counts.tried}, {size >> 20} MiB charged"
        assert counts.tried > 0
        _record(record_property, "A2 children docker", said, through=bool(counts.through))
