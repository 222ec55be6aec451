# SPDX-License-Identifier: Apache-2.0
"""Upgrade and downgrade between two builds of the agent, while a container attacks without a
pause.

The other build is this one with another ABI, and with a map of another shape: compiled here, from
a copy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kernel.probes import results
from tests.kernel.test_agent_continuity import ATTACKS, LABEL, Attacker, kill
from tests.kernel.test_probes_slots import leaver
from tests.support import force
from tests.support.agent import Agent, pinned_agent
from tests.support.cgroups import PREFIX, new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
#: file -> what is changed in it; the Python side is generated
CHANGES = {
    "probes/include/events.h": ("RF_ABI_VERSION = 1,\n", "RF_ABI_VERSION = 2,\n"),
    "probes/include/emit.h": ("RF_COUNTERS = 32,\n", "RF_COUNTERS = 40,\n"),
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of the other build."""
    force.need_root()
    for program in ("clang", "make", "bpftool"):
        force.need_program(program)
    root = tmp_path_factory.mktemp("other")
    for part in ("probes", "agent", "tools"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "*.bpf.o"))
    for name, (old, new) in CHANGES.items():
        text = (root / name).read_text()
        assert text.count(old) == 1, name
        (root / name).write_text(text.replace(old, new))
    subprocess.run(["make", "-s", "-C", str(root / "probes")], check=True)
    subprocess.run([sys.executable, "-m", "tools.abi"], cwd=root, check=True)
    assert "\nABI_VERSION = 2\n" in (root / "agent/ringfence/abi/generated.py").read_text()
    return root


@pytest.fixture
def agents(tmp_path: Path, other: Path) -> Iterator[tuple[Agent, Agent]]:
    """This build and the other one, on one state directory and one bpffs."""
    path = os.pathsep.join((str(other / "agent"), os.environ.get("PYTHONPATH", "")))
    patterns = [f"{PREFIX}{LABEL}*"]
    with pinned_agent(tmp_path, policies=[PACK], patterns=patterns) as this:
        flags = {"pins": str(tmp_path / "bpf"), "containers-adopt": "yes"}
        that = Agent(tmp_path / "agent", policies=[PACK], patterns=patterns, flags=flags)
        that.argv = ["env", f"PYTHONPATH={path}", *that.argv]
        yield this, that
        that.stop()


def test_another_build_takes_over_under_attack(agents: tuple[Agent, Agent]) -> None:
    """Both ways, each time after a kill: no attack succeeds, and the programs are replaced."""
    this, other = agents
    with new_cgroup(LABEL) as cgroup:
        this.start()
        with Attacker(cgroup) as attacker:
            before = this
            for agent in (other, this, other):
                attacker.round("attacks under an agent")
                kill(before)
                attacker.round("attacks without one")
                agent.start()
                attacker.round("attacks under the next")
                wait_for(partial(taken_over, agent), "the take-over")
                assert unreadable(agent) > 0, "it reads records of the other ABI"
                before = agent
        assert not attacker.through
        assert attacker.stopped.total() >= 9 * len(ATTACKS)
        assert before.stop() == 0


def test_another_build_finds_a_process_that_left_its_cgroup(agents: tuple[Agent, Agent], act: str) -> None:
    """Its records have another version, but a task's binding is read all the same."""
    this, other = agents
    with new_cgroup(LABEL) as cgroup:
        this.start()
        child = leaver(cgroup, act, f"unshare:{0x10000000}")
        kill(this)
        other.start()
        wait_for(partial(taken_over, other), "the take-over")
        said, _ = child.communicate(b"x")
        assert results(subprocess.CompletedProcess([], 0, said)).get("unshare") != 0
        assert other.stop() == 0


def taken_over(agent: Agent) -> bool:
    """Returns True if the agent has reported the takeover."""
    return '"message": "taken over"' in agent.tail(20_000).rpartition('"message": "ready"')[2]


def unreadable(agent: Agent) -> float:
    """Returns the number of records of the gap that the agent could not read."""
    return agent.metrics()["ringfence_takeover_records_total", (("outcome", "unreadable"),)]
