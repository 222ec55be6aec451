# SPDX-License-Identifier: Apache-2.0
"""The number of tasks per container is limited: the state of each task takes agent memory."""

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
#: more than the limit, each a process of its own program; the last command runs only if none was
#: stopped
FORKS = f"for i in $(seq {SHARE + 20}); do sleep 600 >/dev/null 2>&1 & done; echo through; wait"
#: the same as threads of one process
THREADS = f"""
import threading, time
for number in range({SHARE + 20}):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
print("through", flush=True)
"""
#: children that run no program, and only wait
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


def limit_alerts(probes: Probes, cgroup: Cgroup) -> list[tuple[int, int]]:
    """Returns (action, number of tasks) of each alert about the task limit."""
    events = probes.events(cgroup, K.AGENT_TAMPER)
    assert {event.what for event in events} <= {Tamper.TASKS}
    return [(event.action, event.detail) for event in events]


def programs(cgroup: Cgroup) -> list[str]:
    """Returns the names of the cgroup's processes."""
    names = []
    for pid in cgroup.pids():
        with contextlib.suppress(OSError):  # the process just ended
            names.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return names


def run_bomb(cgroup: Cgroup, bomb: str) -> tuple[int, bytes]:
    """Returns status and output of the bomb; killed where it waits."""
    process = cgroup.popen(BOMBS[bomb], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.readline()
    process.kill()
    return process.wait(), said


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_task_that_exceeds_the_limit_is_killed(bomb: str, act: str) -> None:
    """It is reported, too; another container is not affected."""
    with running(task_share=SHARE, guard=GUARD_DENY) as probes, new_cgroup(LABEL) as loud:
        process = loud.popen(BOMBS[bomb], stdout=subprocess.DEVNULL)
        assert process.wait(timeout=patience(60)) == -signal.SIGKILL
        assert set(limit_alerts(probes, loud)) == {(Action.KILL, SHARE)}
        with new_cgroup(LABEL) as other:
            assert results(other.run([act, "forks:5"], capture_output=True)) == {"forks": 5}
            assert not limit_alerts(probes, other)


def test_the_child_that_exceeded_the_limit_runs_no_program() -> None:
    """It is killed before it runs a program: of the
    limit, one was the shell (and `seq` has ended).
    """
    with (
        running(task_share=SHARE, guard=GUARD_DENY, observe=[K.PROCESS_EXEC]) as probes,
        new_cgroup(LABEL) as cgroup,
    ):
        process = cgroup.popen(BOMBS["programs"], stdout=subprocess.DEVNULL)
        assert process.wait(timeout=patience(60)) == -signal.SIGKILL
        wait_for(lambda: programs(cgroup) == ["sleep"] * (SHARE - 1), "the one too many to be gone")
        # Linux 7 may skip the program that reports an exec: fewer may have been reported, and
        # never more.
        reported = [one for one in probes.wait(cgroup, K.PROCESS_EXEC) if one.path.endswith(b"sleep")]
        assert 0 < len(reported) <= SHARE - 1


@pytest.mark.parametrize(
    ("guard", "reports"), [(GUARD_ALERT, True), (GUARD_OFF, False)], ids=["alert", "off"]
)
def test_without_enforcement_no_task_is_killed(guard: int, *, reports: bool) -> None:
    """`self_defence: alert` reports, `off` does not."""
    with running(task_share=SHARE, guard=guard) as probes, new_cgroup(LABEL) as cgroup:
        _, said = run_bomb(cgroup, "threads")
        assert said == b"through\n"
        actions = {action for action, _ in limit_alerts(probes, cgroup)}
        assert actions == ({Action.ALERT} if reports else set())


def test_without_a_task_limit_any_number_is_allowed() -> None:
    """A node without a memory limit for the agent."""
    with running(guard=GUARD_DENY) as probes, new_cgroup(LABEL) as cgroup:
        _, said = run_bomb(cgroup, "threads")
        assert said == b"through\n"
        assert not limit_alerts(probes, cgroup)
