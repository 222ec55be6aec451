# SPDX-License-Identifier: Apache-2.0
"""Killing with care: this process and no other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from ringfence.containers.procstat import TICK_NS, start_ticks
from ringfence.response.kill import KillOutcome, kill_process
from tests.support.descriptors import open_descriptors


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the test's own."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def started(pid: int) -> int:
    """Its start as the probes tell it, somewhere within the tick."""
    ticks = start_ticks(pid)
    assert ticks is not None
    return ticks * TICK_NS + TICK_NS // 3


def test_the_process_of_the_event_is_killed(victim: subprocess.Popen[bytes]) -> None:
    """And the result carries the alert's id."""
    result = kill_process(victim.pid, started(victim.pid), "a-1")
    assert (result.outcome, result.action_id, result.ended) == (KillOutcome.KILLED, "a-1", True)
    assert victim.wait(60) == -signal.SIGKILL


def test_another_process_of_the_same_pid_is_left_alone(victim: subprocess.Popen[bytes]) -> None:
    """The start time is not the event's."""
    result = kill_process(victim.pid, started(victim.pid) - TICK_NS, "a-1")
    assert (result.outcome, result.ended) == (KillOutcome.OTHER, False)
    assert victim.poll() is None


def test_a_dry_run_goes_the_same_way_and_spares(victim: subprocess.Popen[bytes]) -> None:
    """All checks, no signal."""
    assert kill_process(victim.pid, started(victim.pid), "a", dry_run=True).outcome is KillOutcome.DRY_RUN
    assert kill_process(victim.pid, 1, "a", dry_run=True).outcome is KillOutcome.OTHER
    assert victim.poll() is None


def test_one_that_has_ended_is_as_good_as_killed() -> None:
    """ESRCH is success."""
    with subprocess.Popen(["true"]) as process:
        start = started(process.pid)
        process.wait()
    result = kill_process(process.pid, start, "a")
    assert (result.outcome, result.ended) == (KillOutcome.GONE, True)


def test_one_that_ends_between_check_and_signal_is_gone(victim: subprocess.Popen[bytes]) -> None:
    """The descriptor does not pass to the PID's next owner."""

    def too_late(descriptor: int, number: int) -> None:
        victim.kill()
        victim.wait()
        signal.pidfd_send_signal(descriptor, number)

    start = started(victim.pid)
    assert kill_process(victim.pid, start, "a", send=too_late).outcome is KillOutcome.GONE


@pytest.mark.parametrize(
    "pid", [0, -1, 1, pytest.param(os.getpid(), id="own")]
)  # a number in the id would differ between xdist's workers
def test_groups_init_and_the_agent_itself_are_never_killed(pid: int) -> None:
    """A record may say anything."""
    assert kill_process(pid, 0, "a").outcome is KillOutcome.FAILED


def test_a_refusal_is_told(victim: subprocess.Popen[bytes]) -> None:
    """EPERM of a hardened node."""

    def refused(descriptor: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    result = kill_process(victim.pid, started(victim.pid), "a", send=refused)
    assert (result.outcome, result.error) == (
        KillOutcome.FAILED,
        "pidfd_send_signal: Operation not permitted",
    )


def test_no_descriptor_is_left_open(victim: subprocess.Popen[bytes]) -> None:
    """An agent that kills a thousand processes."""
    before = open_descriptors()
    for _ in range(20):
        kill_process(victim.pid, 1, "a")
    assert open_descriptors() == before
