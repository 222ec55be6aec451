# SPDX-License-Identifier: Apache-2.0
"""The agent is stopped, interrupted, out of memory: enforcement continues and losses are counted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import EventKind
from tests.escape.program import build, read_attempt
from tests.support import force
from tests.support.agent import Agent, pinned_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import PACK
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

LABEL = "intr"
RULE, ATTACK = "userns-create", ("unshare", "0x10000000")
#: how long SIGSTOP stops the agent; the figure of docs/reference/faults.md is 60
STOPPED = float(os.environ.get("RINGFENCE_STOPPED", "4"))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An enforcing agent with pins of its own."""
    force.need_root()
    with pinned_agent(tmp_path, policies=[PACK], patterns=[f"{PREFIX}{LABEL}-*"]) as made:
        made.start()
        yield made


def attack(cgroup: Cgroup) -> None:
    """Make one attempt, which must be stopped."""
    ended = cgroup.run([str(build()), *ATTACK], stdout=subprocess.PIPE, text=True)
    attempt = read_attempt(ended.returncode, ended.stdout)
    assert attempt.tried
    assert attempt.killed or attempt.refused


def counted(agent: Agent) -> float:
    """Returns the counted alerts of the rule."""
    return sum(
        value
        for (name, labels), value in agent.metrics().items()
        if name == "ringfence_alerts_total" and dict(labels)["rule"] == RULE
    )


def lost(agent: Agent) -> float:
    """Returns the records of such calls that were dropped because the ring was full."""
    labels = (("event", EventKind.SYS_UNSHARE.label), ("reason", "ring_full"))
    return agent.metrics().get(("ringfence_events_dropped_total", labels), 0.0)


def test_a_stopped_agent_reports_everything_once_it_continues(agent: Agent) -> None:
    """SIGSTOP: enforcement continues. SIGCONT: every attempt
    is reported, or counted as beyond the ring's capacity.
    """
    with new_cgroup(LABEL) as cgroup:
        os.kill(agent.pid, signal.SIGSTOP)
        attempts, end = 0, time.monotonic() + STOPPED
        while time.monotonic() < end:
            attack(cgroup)
            attempts += 1
        os.kill(agent.pid, signal.SIGCONT)
        wait_for(lambda: counted(agent) + lost(agent) == attempts, f"{attempts} alerts")
        assert counted(agent) >= min(attempts, 500), "the ring holds some thousand records"
        assert attempts > 2
        assert agent.get("/healthz") == (200, "ok\n")


def test_continuous_signals_do_not_block_the_agent(agent: Agent) -> None:
    """Interrupted calls (EINTR) are repeated; 2,000 reloads
    are merged into few; an alert arrives as before.
    """
    with new_cgroup(LABEL) as cgroup:
        for number in range(2_000):
            os.kill(agent.pid, signal.SIGHUP)
            if number == 1_000:
                attack(cgroup)
        agent.wait_alert(RULE, cgroup.name, seconds=10)
        assert agent.status is None
        wait_for(lambda: agent.get("/readyz") == (200, "ok\n"), "ready")
        assert '"level": "error"' not in agent.log.read_text()


def test_out_of_memory_enforcement_continues_and_the_gap_is_reported(agent: Agent) -> None:
    """The kernel's OOM killer ends the agent; the next one reports what happened in between."""
    with new_cgroup(f"{LABEL}m") as room, new_cgroup(LABEL) as cgroup:
        room.add(agent.pid)
        limit = next(
            path / name
            for path in room.paths.values()
            for name in ("memory.limit_in_bytes", "memory.max")
            if (path / name).exists()
        )
        starve(agent, limit)
        wait_for(lambda: agent.status == -signal.SIGKILL, "the OOM killer")
        attack(cgroup)
        agent.start()
        agent.wait_alert(RULE, cgroup.name)


def starve(agent: Agent, limit: Path) -> None:
    """Limit the agent's cgroup to one page: its next page fault exceeds the limit."""
    try:
        limit.write_text("4096")
    except OSError:  # version 1 refuses a limit below what is charged already and cannot be reclaimed
        limit.write_text("65536")
    os.kill(agent.pid, signal.SIGHUP)
