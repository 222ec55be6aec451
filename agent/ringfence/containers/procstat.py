# SPDX-License-Identifier: Apache-2.0
"""The identity of a process: its start time from /proc/PID/stat (proc(5)), comparable with the kernel's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["TICK_NS", "Stat", "read_stat", "start_ticks", "ticks_of"]

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_START, _PPID = 19, 1  # positions after the name and its parenthesis


class Stat(NamedTuple):
    """Fields of /proc/PID/stat. `start` is in clock ticks since boot."""

    comm: bytes
    ppid: int
    start: int


def read_stat(pid: int, proc: Path = Path("/proc")) -> Stat | None:
    """Returns the fields; None if there is no such process. The name may contain parentheses and newlines."""
    try:
        raw = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    opening, closing = raw.find(b"("), raw.rfind(b")")
    fields = raw[closing + 2 :].split()
    if opening < 0 or closing < opening or len(fields) <= _START:
        return None
    return Stat(raw[opening + 1 : closing], int(fields[_PPID]), int(fields[_START]))


def start_ticks(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Returns the start time of a process in clock ticks since boot; None if there is no such process."""
    found = read_stat(pid, proc)
    return found.start if found else None


def ticks_of(start_ns: int) -> int:
    """Converts a start time of the probes (CLOCK_BOOTTIME, ns) to clock ticks, as fs/proc/array.c does."""
    return start_ns // TICK_NS
