# SPDX-License-Identifier: Apache-2.0
"""Waiting for a state, with a bound. Tests never sleep for a fixed time and hope."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["busy", "end", "patience", "process_state", "quickest", "wait_for"]

T = TypeVar("T")
_OFTEN = 12


def patience(seconds: float) -> float:
    """A time limit for this machine: guests under emulation say how much slower they are."""
    return seconds * float(os.environ.get("RINGFENCE_TEST_SLOWDOWN", "1"))


def busy() -> float:
    """The factor by which a time limit grows while other processes use this machine: its load per CPU.

    At least 1, and 3 in a guest, which does not see the load of the machine below it. At most 4 (8 in a
    guest): a limit without an upper end would check nothing.
    """
    least, most = (3.0, 8.0) if patience(1) > 1 else (1.0, 4.0)
    return min(most, max(least, os.getloadavg()[0] / (os.cpu_count() or 1)))


def quickest(measure: Callable[[], float], limit: float, *, tries: int = 10) -> float:
    """The least of up to so many measurements; the first below `limit` is the last.

    What takes too long by itself does so each time. What somebody else's work held up does not.
    """
    least = measure()
    for _ in range(tries - 1):
        if least < limit:
            break
        least = min(least, measure())
    return least


def wait_for(probe: Callable[[], T | None], what: str, *, seconds: float = 60.0, every: float = 0.01) -> T:
    """Call `probe` until it returns something true, and return that.

    The bound is for what never comes, and so far away: how quickly something comes is asserted where it
    matters. Raises AssertionError naming `what` when `seconds` (scaled by `patience`) have passed, and one
    more look has shown nothing: this process may have been held up itself.

    What is waited for has to last: a state that passes by itself may have passed before anybody looks.
    `RINGFENCE_TEST_LATE`, in seconds, makes first looks come so late, and so finds such tests.
    """
    _be_late()
    until = time.monotonic() + patience(seconds)
    while True:
        late = time.monotonic() > until
        got = probe()
        if got:
            return got
        if late:
            raise AssertionError(f"waited {patience(seconds):.1f} s for {what}; last answer: {got!r}")
        time.sleep(every)


_LATE: Counter[tuple[str, int]] = (
    Counter()
)  # places in the tests: where many are waited for, the first few are late


def _be_late() -> None:
    seconds = float(os.environ.get("RINGFENCE_TEST_LATE", "0"))
    if not seconds:
        return
    caller = sys._getframe(2)
    place = (caller.f_code.co_filename, caller.f_lineno)
    _LATE[place] += 1
    if _LATE[place] <= _OFTEN:
        time.sleep(seconds)


def end(process: subprocess.Popen[Any], *, seconds: float = 60.0) -> int:
    """SIGTERM, and SIGKILL where that is not enough; its status."""
    process.terminate()
    try:
        return process.wait(patience(seconds))
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def process_state(pid: int) -> str:
    """The state letter of a process as /proc shows it (`R`, `S`, `Z` ...); `-` where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "-"
