# SPDX-License-Identifier: Apache-2.0
"""A switch from enforce to audit: in force when the agent is ready, and reported as it was."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.kernel.test_self_defence_limits import userns
from tests.support import force
from tests.support.agent import Agent, pinned_agent
from tests.support.cgroups import PREFIX, new_cgroup
from tests.support.policies import USERNS, written
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root
LABEL = "modes"


def test_a_switch_to_audit_is_in_force_when_the_agent_is_ready(tmp_path: Path) -> None:
    """Nothing is killed from then on, and each kill before it is reported as a kill."""
    force.need_root()
    policy = written(tmp_path, USERNS)
    with (
        pinned_agent(tmp_path, policies=[policy], patterns=[f"{PREFIX}{LABEL}*"]) as agent,
        new_cgroup(LABEL) as cgroup,
    ):
        agent.argv += ["--mode", "enforce"]
        agent.start()
        assert userns(cgroup)
        agent.stop()
        agent.argv += ["--mode", "audit"]
        agent.start(wait=False)
        killed = 0
        while not agent._is_ready():
            killed += userns(cgroup)
        assert not any(userns(cgroup) for _ in range(3))
        reported = partial(killed_of, agent)
        wait_for(lambda: reported() >= killed, "the kills of the earlier agent's programs")
        assert reported() == killed


def killed_of(agent: Agent) -> float:
    """Returns how many calls were reported as killed."""
    return sum(
        value
        for (name, labels), value in agent.metrics().items()
        if name == "ringfence_alerts_total" and ("outcome", "killed") in labels
    )
