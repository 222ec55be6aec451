# SPDX-License-Identifier: Apache-2.0
"""A container may not have more tasks than its share: what is known of them takes of the agent's memory."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.abi import GUARD_ALERT, GUARD_DENY, GUARD_OFF, Action, EventKind, Tamper
from tests.kernel.probes import LABEL, Probes, results, running
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
K = EventKind
SHARE = 40
#: more than the share, each of them a process of its own program; the last word is of whoever got so far
FORKS = f"for i in $(seq {SHARE + 20}); do sleep 600 >/dev/null 2>&1 & done; echo through; wait"
#: the same as threads of one process
THREADS = f"""
import threading, time
for number in range({SHARE + 20}):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("through", flush=True)
"""
#: children that run no program, and only wait; each says that it began
CHILDREN = f"""
import os, time
for number in range({SHARE + 20}):
    if not os.fork():
        time.sleep(600)
print("through", flush=True)
"""
BOMBS = {
    "programs": ["/bin/sh", "-c", FORKS],
    "threads": [sys.executable, "-c", THREADS],
    "children": [sys.executable, "-c", CHILDREN],
}


def told(probes: Probes, cgroup: Cgroup) -> list[tuple[int, int]]:
    """(action, how many tasks there were) of each alert about a share."""
    events = probes.events(cgroup, K.AGENT_TAMPER)
    assert {event.what for event in events} <= {Tamper.TASKS}
    return [(event.action, event.detail) for event in events]


def programs(cgroup: Cgroup) -> list[str]:
    """What each process of it calls itself."""
    names = []
    for pid in cgroup.pids():
        with contextlib.suppress(OSError):  # it ends just now
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


def run_bomb(cgroup: Cgroup, bomb: str) -> tuple[int, bytes]:
    """Its status, and what it said; killed where it waits."""
    process = cgroup.popen(BOMBS[bomb], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.readline()
    process.kill()
    return process.wait(), said


@pytest.mark.parametrize("bomb", BOMBS)
def test_who_makes_one_too_many_is_killed(bomb: str, act: str) -> None:
    """And told of; another container is left alone."""
    with running(task_share=SHARE, guard=GUARD_DENY) as probes, new_cgroup(LABEL) as loud:
        process = loud.popen(BOMBS[bomb], stdout=subprocess.DEVNULL)
        assert process.wait(timeout=patience(60)) == -signal.SIGKILL
        assert set(told(probes, loud)) == {(Action.KILL, SHARE)}
        with new_cgroup(LABEL) as other:
            assert results(other.run([act, "forks:5"], capture_output=True)) == {"forks": 5}
            assert not told(probes, other)


def test_the_child_that_was_too_many_does_nothing_more() -> None:
    """It is killed before it runs a program: of the share, one was the shell (and `seq` has ended)."""
    with (
        running(task_share=SHARE, guard=GUARD_DENY, observe=[K.PROCESS_EXEC]) as probes,
        new_cgroup(LABEL) as cgroup,
    ):
        process = cgroup.popen(BOMBS["programs"], stdout=subprocess.DEVNULL)
        assert process.wait(timeout=patience(60)) == -signal.SIGKILL
        wait_for(lambda: programs(cgroup) == ["sleep"] * (SHARE - 1), "the one too many to be gone")
        # Linux 7 may skip the program that tells of an exec: fewer may have been told of, and never more.
        told_of = [one for one in probes.wait(cgroup, K.PROCESS_EXEC) if one.path.endswith(b"sleep")]
        assert 0 < len(told_of) <= SHARE - 1


@pytest.mark.parametrize(("guard", "tells"), [(GUARD_ALERT, True), (GUARD_OFF, False)], ids=["alert", "off"])
def test_elsewhere_nobody_is_killed(guard: int, *, tells: bool) -> None:
    """`self_defence: alert` tells, `off` says nothing."""
    with running(task_share=SHARE, guard=guard) as probes, new_cgroup(LABEL) as cgroup:
        _, said = run_bomb(cgroup, "threads")
        assert said == b"through\n"
        actions = {action for action, _ in told(probes, cgroup)}
        assert actions == ({Action.ALERT} if tells else set())


def test_without_a_share_there_may_be_any_number() -> None:
    """A node without a limit of memory for the agent."""
    with running(guard=GUARD_DENY) as probes, new_cgroup(LABEL) as cgroup:
        _, said = run_bomb(cgroup, "threads")
        assert said == b"through\n"
        assert not told(probes, cgroup)
