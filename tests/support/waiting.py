# SPDX-License-Identifier: Apache-2.0
"""Waiting for a state, with a bound. Tests never sleep for a fixed time and hope."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["patience", "process_state", "wait_for"]

T = TypeVar("T")


def patience(seconds: float) -> float:
    """A time limit for this machine: guests under emulation say how much slower they are."""
    return seconds * float(os.environ.get("RINGFENCE_TEST_SLOWDOWN", "1"))


def wait_for(probe: Callable[[], T | None], what: str, *, seconds: float = 5.0, every: float = 0.01) -> T:
    """Call `probe` until it returns something true, and return that.

    Raises AssertionError naming `what` when `seconds` (scaled by `patience`) have passed.
    """
    end = time.monotonic() + patience(seconds)
    while True:
        got = probe()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"waited {patience(seconds):.1f} s for {what}; last answer: {got!r}")
        time.sleep(every)


def process_state(pid: int) -> str:
    """The state letter of a process as /proc shows it (`R`, `S`, `Z` ...); `-` where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "-"
