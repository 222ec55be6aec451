# SPDX-License-Identifier: Apache-2.0
"""Kills exactly the process of the event."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from ringfence.response.kill import KillOutcome, kill_process
from ringfence_linux.procfs import TICK_NS, start_ticks
from tests.support.descriptors import open_descriptors


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the test."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def started(pid: int) -> int:
    """Returns its start time as the probes report it, somewhere within the tick."""
    ticks = start_ticks(pid)
    assert ticks is not None
    return ticks * TICK_NS + TICK_NS // 3


def test_the_process_of_the_event_is_killed(victim: subprocess.Popen[bytes]) -> None:
    """The result has the alert's id."""
    result = kill_process(victim.pid, started(victim.pid), "a-1")
    assert (result.outcome, result.action_id, result.ended) == (KillOutcome.KILLED, "a-1", True)
    assert victim.wait(60) == -signal.SIGKILL


def test_another_process_with_the_same_pid_is_not_killed(victim: subprocess.Popen[bytes]) -> None:
    """Its start time is not the event's."""
    result = kill_process(victim.pid, started(victim.pid) - TICK_NS, "a-1")
    assert (result.outcome, result.ended) == (KillOutcome.OTHER, False)
    assert victim.poll() is None


def test_a_dry_run_checks_but_does_not_kill(victim: subprocess.Popen[bytes]) -> None:
    """It makes all checks, and sends no signal."""
    assert kill_process(victim.pid, started(victim.pid), "a", dry_run=True).outcome is KillOutcome.DRY_RUN
    assert kill_process(victim.pid, 1, "a", dry_run=True).outcome is KillOutcome.OTHER
    assert victim.poll() is None


def test_a_process_that_has_ended_counts_as_killed() -> None:
    """ESRCH is success."""
    with subprocess.Popen(["true"]) as process:
        start = started(process.pid)
        process.wait()
    result = kill_process(process.pid, start, "a")
    assert (result.outcome, result.ended) == (KillOutcome.GONE, True)


def test_a_process_that_ends_between_check_and_signal_is_gone(victim: subprocess.Popen[bytes]) -> None:
    """The pidfd does not refer to the PID's next owner."""

    def too_late(descriptor: int, number: int) -> None:
        victim.kill()
        victim.wait()
        signal.pidfd_send_signal(descriptor, number)

    start = started(victim.pid)
    assert kill_process(victim.pid, start, "a", send=too_late).outcome is KillOutcome.GONE


@pytest.mark.parametrize(
    "pid", [0, -1, 1, os.getpid()], ids=["own group", "every process", "init", "own pid"]
)
def test_groups_init_and_the_agent_itself_are_never_killed(pid: int) -> None:
    """A record may contain any number."""
    assert kill_process(pid, 0, "a").outcome is KillOutcome.FAILED


def test_a_refused_kill_is_reported(victim: subprocess.Popen[bytes]) -> None:
    """EPERM on a hardened node."""

    def refused(descriptor: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    result = kill_process(victim.pid, started(victim.pid), "a", send=refused)
    assert (result.outcome, result.error) == (
        KillOutcome.FAILED,
        "pidfd_send_signal: Operation not permitted",
    )


def test_no_descriptor_is_left_open(victim: subprocess.Popen[bytes]) -> None:
    """For an agent that kills a thousand processes."""
    before = open_descriptors()
    for _ in range(20):
        kill_process(victim.pid, 1, "a")
    assert open_descriptors() == before
