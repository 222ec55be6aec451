# SPDX-License-Identifier: Apache-2.0
"""The identity of a process: its start time, from /proc/PID/stat (proc(5)), and how it compares with the
kernel's.
"""

from __future__ import annotations

import os

__all__ = [
    "TICK_NS",
    "Stat",
    "boottime_ahead_ns",
    "live_start",
    "own_start_ns",
    "parse_stat",
    "read_stat",
    "start_ticks",
    "ticks_of",
]

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
_STATE, _PPID, _START = 0, 1, 19  # positions after the name and its parenthesis
_ENDED = (b"Z", b"X", b"x")


class Stat:
    """What is needed of /proc/PID/stat. `start` counts in clock ticks since boot."""

    __slots__ = ("comm", "ppid", "start", "state")

    def __init__(self, comm: bytes, fields: list[bytes]) -> None:
        self.comm = comm
        self.state = fields[_STATE]
        self.ppid = int(fields[_PPID])
        self.start = int(fields[_START])


def parse_stat(raw: bytes) -> Stat | None:
    """None if it cannot be parsed. The name may hold anything, parentheses and newlines included."""
    opening, closing = raw.find(b"("), raw.rfind(b")")
    fields = raw[closing + 2 :].split()
    if opening < 0 or closing < opening or len(fields) <= _START:
        return None
    return Stat(raw[opening + 1 : closing], fields)


def read_stat(pid: int | str, proc: str | os.PathLike[str] = "/proc") -> Stat | None:
    """None if there is no such process, or it cannot be read."""
    try:
        return parse_stat(_read(f"{os.fspath(proc)}/{pid}/stat"))
    except OSError:
        return None


def start_ticks(pid: int | str, proc: str | os.PathLike[str] = "/proc") -> int | None:
    """The start time in clock ticks since boot, also of a zombie; None if there is no such process."""
    found = read_stat(pid, proc)
    return found.start if found else None


def live_start(pid: int) -> int:
    """The start time in clock ticks since boot; 0 if the process has ended, also if it is a zombie.

    Together with the pid it identifies a process. Raises OSError if that cannot be read.
    """
    try:
        found = parse_stat(_read(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if found is None or found.state in _ENDED else found.start


def own_start_ns() -> int:
    """The start time of this process in ns since boot, rounded down to a clock tick. Raises OSError."""
    found = parse_stat(_read("/proc/self/stat"))
    assert found is not None
    return found.start * TICK_NS


def ticks_of(start_ns: int) -> int:
    """A start time in ns (CLOCK_BOOTTIME) as /proc shows it: fs/proc/array.c divides it."""
    return start_ns // TICK_NS


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def boottime_ahead_ns(proc: str | os.PathLike[str] = "/proc") -> int:
    """The nanoseconds by which CLOCK_BOOTTIME of this process is ahead of the kernel's own clock.

    It is not 0 in a time namespace (time_namespaces(7)); 0 also on a kernel without them.
    """
    try:
        lines = _read(f"{os.fspath(proc)}/self/timens_offsets").splitlines()
        words = next(line.split() for line in lines if line.startswith(b"boottime"))
        return int(words[1]) * 10**9 + int(words[2])
    except (OSError, StopIteration, ValueError, IndexError):
        return 0
