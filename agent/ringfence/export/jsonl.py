# SPDX-License-Identifier: Apache-2.0
"""JSON lines to standard output or a file, written by a thread, so that a slow output never holds
up the loop.

A closed pipe, a full disk or a reader that does not read costs lines, never the agent. Each lost
line is counted by reason; the first of a run of losses is reported to `complain`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import select
import stat
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ringfence.files import forget_cache

__all__ = ["LineWriter", "dumps", "line_of"]

_BATCH_BYTES = 1 << 16
_CACHE_BYTES = 1 << 20  # of a file that may stay in the page cache
_REASONS = {
    errno.EPIPE: "closed",
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EBADF: "closed",
}
Complain = Callable[[str, str], None]


def dumps(record: Any) -> str:
    """One record as one line of JSON without its newline. Text must have been through `escape`."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, default=str)


def line_of(record: Any) -> bytes:
    """One record as a whole line; a lone surrogate, which UTF-8 does not have, is escaped."""
    return dumps(record).encode("utf-8", "backslashreplace") + b"\n"


class LineWriter:
    """A bounded queue of lines in front of a descriptor or a file.

    `written` counts lines, `dropped` counts lines by reason: slow (queue full), closed, disk_full,
    error. `complain(reason, destination)` is called from the writer's thread when a run of losses
    begins, and with `not_reopened` when a rotated file cannot be opened again (no line is lost by
    that).
    """

    def __init__(self, target: int | Path, *, capacity: int = 4096, complain: Complain | None = None) -> None:
        self.written = 0
        self.dropped: Counter[str] = Counter()
        self.name = (
            str(target) if isinstance(target, Path) else {1: "stdout", 2: "stderr"}.get(target, "output")
        )
        self._path = target if isinstance(target, Path) else None
        self._fd = target if isinstance(target, int) else _open(target)
        self._capacity = capacity
        self._complain = complain or (lambda _reason, _name: None)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._failing = ""
        self._torn = _ends_torn(self._fd, self._path)  # the last write ended inside a line
        self._reopen = self._stuck = False  # stuck: the file cannot be opened again, which was reported
        self._cached = 0  # bytes written since the cache was given up
        self._queued = 0  # lines accepted
        self._settled = 0  # lines written or lost, of those accepted
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"writer-{self.name}", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> bool:
        """Queue one line, newline included. Never blocks; returns False if it was dropped."""
        if self._lines.qsize() >= self._capacity:
            self.dropped["slow"] += 1
            if not self._failing:
                self._failing = "slow"
                self._complain("slow", self.name)
            return False
        self._queued += 1
        self._lines.put(line)
        return True

    def emit(self, record: Mapping[str, Any]) -> bool:
        """Queue one record as a line of JSON. Never blocks; False if it was dropped."""
        return self.write(line_of(record))

    @property
    def capacity(self) -> tuple[int, int]:
        """Lines that are queued, and the maximum."""
        return self._lines.qsize(), self._capacity

    def settle(self, timeout: float) -> bool:
        """Wait until every line accepted so far was written or lost, for at most `timeout`
        seconds.
        """
        wanted = self._queued
        with self._progress:
            return self._progress.wait_for(lambda: self._settled >= wanted, timeout)

    def reopen(self) -> None:
        """Open the file again before the next line, because it was rotated."""
        self._reopen = self._path is not None

    def close(self, timeout: float = 1.0) -> None:
        """Write the queued lines, for at most `timeout` seconds, and stop."""
        self._lines.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        open_ = True
        while open_:
            batch = [self._lines.get()]
            size = len(batch[0] or b"")
            while batch[-1] is not None and size < _BATCH_BYTES and not self._lines.empty():
                batch.append(self._lines.get())
                size += len(batch[-1] or b"")
            if batch[-1] is None:
                open_ = False
                batch.pop()
            if batch:
                self._write_batch(b"".join(line for line in batch if line), len(batch))
                with self._progress:
                    self._settled += len(batch)
                    self._progress.notify_all()

    def _write_batch(self, data: bytes, lines: int) -> None:
        done = 0
        try:
            self._follow_rotation()
            if self._torn:
                self._write_all(b"\n")
                self._torn = False
            while done < len(data):
                done += self._write_some(data[done:])
            self.written += lines
            self._failing = ""
            self._uncached(len(data))
        except OSError as error:
            whole = data.count(b"\n", 0, done)
            self._torn = self._torn or (done > 0 and data[done - 1] != 0x0A)
            self.written += whole
            self._lost(_REASONS.get(error.errno or 0, "error"), lines - whole)

    def _uncached(self, size: int) -> None:
        """The file is not read again: its cache would only fill the agent's memory limit."""
        self._cached += size
        if self._path is not None and self._cached >= _CACHE_BYTES:
            self._cached = 0
            forget_cache(self._fd)

    def _follow_rotation(self) -> None:
        """Switch to the new file once it can be opened. Until then, lines go to the old one."""
        if not self._reopen or self._path is None:
            return
        self._reopen = False
        try:
            fresh = _open(self._path)
        except OSError:
            self._reopen = True
            if not self._stuck:
                self._stuck = True
                self._complain("not_reopened", self.name)
            return
        # Only now: had it been closed first, another thread could have got its number.
        with contextlib.suppress(OSError):
            os.close(self._fd)
        self._fd, self._stuck, self._torn = fresh, False, _ends_torn(fresh, self._path)

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[self._write_some(data) :]

    def _write_some(self, data: bytes) -> int:
        while True:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:  # another process made standard output non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)

    def _lost(self, reason: str, lines: int) -> None:
        self.dropped[reason] += lines
        if self._failing != reason:
            self._failing = reason
            self._complain(reason, self.name)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)


def _ends_torn(fd: int, path: Path | None) -> bool:
    """Returns True if the file ends inside a line: an earlier writer was killed while it wrote."""
    state = os.fstat(fd) if path is not None else None
    if path is None or state is None or not stat.S_ISREG(state.st_mode) or not state.st_size:
        return False
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return os.pread(file.fileno(), 1, state.st_size - 1) not in (b"\n", b"")
    except OSError:
        return False
