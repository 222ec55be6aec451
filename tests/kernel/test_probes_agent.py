# SPDX-License-Identifier: Apache-2.0
"""The agent that loaded the programs is not restricted: identified by its pid and its start time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ringfence.abi import EventKind
from ringfence_linux.procfs import TICK_NS, start_ticks
from tests.kernel.probes import LABEL, running
from tests.support.cgroups import Cgroup, new_cgroup

pytestmark = pytest.mark.root
K = EventKind
# It has its own mounts, its cgroup is a container's, and the probes are loaded later: its exec
# would arm it.
WAITS = (sys.executable, "-c", "import os, sys; sys.stdin.read(1); os.execvp('/bin/true', ['true'])")


def waiting(cgroup: Cgroup) -> subprocess.Popen[bytes]:
    """A process in the cgroup, one exec from being armed."""
    return cgroup.popen(WAITS, stdin=subprocess.PIPE)


@pytest.mark.parametrize(("off", "subject"), [(0, False), (-1, True), (1, True)])
def test_the_agent_is_identified_by_its_pid_and_its_start(off: int, *, subject: bool) -> None:
    """With another start time the pid belongs to another process."""
    with new_cgroup(LABEL) as outer, waiting(outer) as process:
        ticks = start_ticks(process.pid)
        assert ticks is not None
        start = (ticks + off) * TICK_NS
        with running(observe=[K.PROCESS_EXEC], agent_pid=process.pid, agent_start_ns=start) as probes:
            with new_cgroup(LABEL) as cgroup:
                cgroup.add(process.pid)
                assert process.communicate(b"x") is not None
                assert process.returncode == 0
                cgroup.run(["true"])  # other processes are restricted, whatever they are
                probes.wait(cgroup, K.PROCESS_EXEC)
                reported = {event.pid for event in probes.events(cgroup, K.PROCESS_EXEC)}
    assert (process.pid in reported) is subject
    assert reported - {process.pid}


def test_a_process_with_the_pid_of_an_ended_agent_is_restricted(tamper: str) -> None:
    """By clone3 with set_tid, and inherited: fork, exec and exit are reported."""
    ended = subprocess.Popen(["true"])
    ticks = start_ticks(ended.pid)
    assert ticks is not None
    assert ended.wait() == 0
    with (
        running(
            observe=[K.PROCESS_FORK, K.PROCESS_EXEC, K.PROCESS_EXIT],
            agent_pid=ended.pid,
            agent_start_ns=(ticks - 100) * TICK_NS,
        ) as probes,
        new_cgroup(LABEL) as cgroup,
    ):
        done = cgroup.run([tamper, "as", str(ended.pid), "true"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for kind in (K.PROCESS_EXEC, K.PROCESS_EXIT):
            probes.wait(cgroup, kind, 2)
        forked = [event.child_pid for event in probes.events(cgroup, K.PROCESS_FORK)]
        assert ended.pid in forked
        for kind in (K.PROCESS_EXEC, K.PROCESS_EXIT):
            assert ended.pid in {event.pid for event in probes.events(cgroup, kind)}
