# SPDX-License-Identifier: Apache-2.0
"""The canary of a real agent: an event each second,
none if its path is broken, removed at the end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.containers.hierarchy import detect
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
SECONDS_SINCE = ("ringfence_canary_seconds", ())
RECEIVED = ("ringfence_canary_records_total", ())


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An agent with a canary."""
    flags = {"canary": "yes"}
    with running_agent(tmp_path / "agent", policies=[PACK], flags=flags) as made:
        yield made


def cage(agent: Agent) -> Path:
    """The canary's cgroup."""
    return detect().mount / f"ringfence-canary-{agent.pid}.0"


def test_it_is_received_repeatedly_and_is_no_container(agent: Agent) -> None:
    """It is not a container: not counted, not listed, and not in any line."""
    wait_for(lambda: agent.metrics()[RECEIVED] >= 3, "three canaries")
    wait_for(lambda: agent.metrics()[SECONDS_SINCE] < 3, "a recent one")
    metrics = agent.metrics()
    assert sum(n for (name, _), n in metrics.items() if name == "ringfence_containers") == 0
    assert metrics["ringfence_container_transitions_total", (("to", "created"),)] == 0
    assert not agent.records
    with new_cgroup("canary") as cgroup:  # and real containers still are
        cgroup.run(["true"])
        agent.wait_record(
            lambda one: one["container"].get("id") == cgroup.name, "the container's own records"
        )


def test_its_absence_is_detected(agent: Agent) -> None:
    """Its cgroup is removed: the seconds since its last event rise, and the log gives the reason."""
    wait_for(lambda: agent.metrics()[RECEIVED] >= 1, "a canary")

    def gone() -> bool:
        for path in (cage(agent) / "beat", cage(agent)):
            if path.exists():
                path.rmdir()
        return not cage(agent).exists()

    wait_for(gone, "the cgroup to go")
    wait_for(lambda: agent.metrics()[SECONDS_SINCE] > 3, "the absence to be detected")
    assert "no canary" in agent.tail(10_000)


def test_it_is_removed_with_the_agent_or_by_the_next_agent_after_a_kill(agent: Agent, tmp_path: Path) -> None:
    """A cgroup at the root of the host must not stay."""
    left = cage(agent)
    assert left.is_dir()
    os.kill(agent.pid, signal.SIGKILL)
    agent.stop()
    assert left.is_dir()
    with running_agent(tmp_path / "next", policies=[PACK], flags={"canary": "yes"}) as following:
        assert not left.exists()
        own = cage(following)
        assert own.is_dir()
    assert not own.exists()
