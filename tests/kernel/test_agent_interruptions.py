# SPDX-License-Identifier: Apache-2.0
"""The agent is stopped, interrupted, starved of memory: what is enforced goes on, what is lost is counted."""

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
#: how long SIGSTOP holds the agent; the figure of docs/faults.md is 60
STOPPED = float(os.environ.get("RINGFENCE_STOPPED", "4"))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """An enforcing agent with pins of its own."""
    force.need_root()
    with pinned_agent(tmp_path, policies=[PACK], patterns=[f"{PREFIX}{LABEL}-*"]) as made:
        made.start()
        yield made


def attack(cgroup: Cgroup) -> None:
    """One attempt, which must be stopped."""
    ended = cgroup.run([str(build()), *ATTACK], stdout=subprocess.PIPE, text=True)
    attempt = read_attempt(ended.returncode, ended.stdout)
    assert attempt.tried
    assert attempt.killed or attempt.refused


def counted(agent: Agent) -> float:
    """Alerts of the rule."""
    return sum(
        value
        for (name, labels), value in agent.metrics().items()
        if name == "ringfence_alerts_total" and dict(labels)["rule"] == RULE
    )


def lost(agent: Agent) -> float:
    """Records of such calls that the full ring did not take."""
    labels = (("event", EventKind.SYS_UNSHARE.label), ("reason", "ring_full"))
    return agent.metrics().get(("ringfence_events_dropped_total", labels), 0.0)


def test_an_agent_that_is_stopped_for_a_while_tells_all_afterwards(agent: Agent) -> None:
    """SIGSTOP: enforcement goes on without it; SIGCONT: every attempt is told, or counted as beyond the
    ring's room."""
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


def test_signals_without_end_do_not_hold_it_up(agent: Agent) -> None:
    """Interrupted calls (EINTR) are made again; 2,000 reloads are few; an alert comes as ever."""
    with new_cgroup(LABEL) as cgroup:
        for number in range(2_000):
            os.kill(agent.pid, signal.SIGHUP)
            if number == 1_000:
                attack(cgroup)
        agent.wait_alert(RULE, cgroup.name, seconds=10)
        assert agent.status is None
        wait_for(lambda: agent.get("/readyz") == (200, "ok\n"), "ready")
        assert '"level": "error"' not in agent.log.read_text()


def test_when_memory_runs_out_enforcement_goes_on_and_the_gap_is_told(agent: Agent) -> None:
    """The kernel's OOM killer ends the agent; the next one tells what happened meanwhile."""
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
    """Allow the agent's cgroup one page: what it touches next is too much."""
    try:
        limit.write_text("4096")
    except OSError:  # version 1 refuses a limit below what is charged already and cannot be reclaimed
        limit.write_text("65536")
    os.kill(agent.pid, signal.SIGHUP)
