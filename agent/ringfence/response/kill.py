# SPDX-License-Identifier: Apache-2.0
"""Kills one process, and certainly that one: for verdicts that the kernel's program could only refuse.

cgroup-BPF programs cannot raise a signal on every kernel, so a `kill` rule there is a refusal in the kernel,
and this afterwards. PIDs are reused: the pidfd is opened first, then its process is checked, then the signal
goes through the pidfd.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ringfence_linux.procfs import start_ticks, ticks_of

__all__ = ["KillOutcome", "KillResult", "kill_process"]


class KillOutcome(StrEnum):
    """What became of the kill."""

    KILLED = "killed"
    GONE = "gone"  # it had ended: as good
    OTHER = "other"  # the PID belongs to somebody else by now: nothing was done
    DRY_RUN = "dry-run"
    FAILED = "failed"


class KillResult(NamedTuple):
    """`action_id` is the alert's id: log, metric and alert share it."""

    action_id: str
    pid: int
    outcome: KillOutcome
    error: str = ""

    @property
    def ended(self) -> bool:
        """The process is no more, or will be in a moment."""
        return self.outcome in (KillOutcome.KILLED, KillOutcome.GONE)


def kill_process(
    pid: int,
    start_ns: int,
    action_id: str,
    *,
    dry_run: bool = False,
    proc: Path = Path("/proc"),
    open_pidfd: Callable[[int], int] = os.pidfd_open,
    send: Callable[[int, int], None] = signal.pidfd_send_signal,
) -> KillResult:
    """SIGKILL the thread group `pid` that started at `start_ns` (CLOCK_BOOTTIME, of an event's header).

    Never raises. A dry run goes the same way and stops before the signal.
    """

    def result(outcome: KillOutcome, error: str = "") -> KillResult:
        return KillResult(action_id, pid, outcome, error)

    # 0 and negative numbers mean groups of processes to kill(2), and 1 is nobody's to kill.
    if pid <= 1 or pid == os.getpid():
        return result(KillOutcome.FAILED, f"{pid} is no process of a container")
    try:
        descriptor = open_pidfd(pid)
    except ProcessLookupError:
        return result(KillOutcome.GONE)
    except OSError as error:
        return result(KillOutcome.FAILED, f"pidfd_open: {error.strerror}")
    try:
        found = start_ticks(pid, proc)
        if found is None:
            return result(KillOutcome.GONE)
        if found != ticks_of(start_ns):
            return result(KillOutcome.OTHER)
        if dry_run:
            return result(KillOutcome.DRY_RUN)
        send(descriptor, signal.SIGKILL)
        return result(KillOutcome.KILLED)
    except ProcessLookupError:
        return result(KillOutcome.GONE)
    except OSError as error:
        return result(KillOutcome.FAILED, f"pidfd_send_signal: {error.strerror}")
    finally:
        os.close(descriptor)
