# SPDX-License-Identifier: Apache-2.0
"""A bounded queue of records on disk: what waits for one receiver.

Segment files hold frames (length, CRC-32, payload); `cursor` says how far the receiver has come. What was
appended survives the agent's death at once, and a power cut as far as `sync` was called. A torn or broken
frame ends its segment, and is counted. Delivery is at least once: what was on its way when the agent died is
sent again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ringfence.errors import Error

__all__ = ["RECORD_MAX", "Batch", "Spool"]

_FRAME = struct.Struct("<II")  # length and CRC-32 of the payload
_SUFFIX = ".seg"
_SEGMENTS = 16  # of a full queue
RECORD_MAX = 1 << 20


class _Segment:
    """One file: its bytes and frames, and how many of the frames were handed out."""

    __slots__ = ("frames", "number", "offset", "size", "taken")

    def __init__(self, number: int) -> None:
        self.number = number
        self.size = self.frames = self.taken = 0
        self.offset = 0  # of the first frame that was not handed out


class Batch(NamedTuple):
    """Records in the order of their appending, and where the queue stands after them."""

    records: tuple[bytes, ...]
    segment: int
    offset: int


class Spool:
    """One thread appends, one takes. `records` counts what was not handed out.

    `lost` by reason: queue_full (the oldest made room), corrupt, disk_error, too_large.
    """

    def __init__(self, directory: Path, size_max: int) -> None:
        self.directory, self.size_max = directory, size_max
        self.lost: Counter[str] = Counter()
        self._segment_max = max(size_max // _SEGMENTS, 4096)
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._segments: deque[_Segment] = deque()
        self._fd = -1
        self._dirty = False
        self._guard = _own(directory)
        self._recover()

    @property
    def records(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(segment.frames - segment.taken for segment in self._segments)

    @property
    def held(self) -> int:
        """Bytes that the files hold, delivered records of unfinished segments included."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    def append(self, payload: bytes) -> bool:
        """Put one record behind the others; False when it could not be kept, which is counted."""
        if len(payload) > RECORD_MAX:
            self.lost["too_large"] += 1
            return False
        frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        with self._lock:
            try:
                segment = self._room(len(frame))
                if os.pwrite(self._fd, frame, segment.size) != len(frame):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self.lost["disk_error"] += 1
                return False
            segment.size += len(frame)
            segment.frames += 1
            self._dirty = True
            self._more.notify()
        return True

    def sync(self) -> None:
        """Force what was appended to the disk."""
        with self._lock:
            if not self._dirty or self._fd < 0:
                return
            fd, self._dirty = os.dup(self._fd), False
        with contextlib.suppress(OSError):
            os.fdatasync(fd)
        os.close(fd)

    def wait(self, seconds: float) -> bool:
        """Wait until there is something to take; False after `seconds`."""
        with self._more:
            return self._more.wait_for(lambda: any(s.taken < s.frames for s in self._segments), seconds)

    def wake(self) -> None:
        """End a `wait` early."""
        with self._more:
            self._more.notify_all()

    def take(self, count: int, size: int) -> Batch | None:
        """The next records of one segment, at most `count` and about `size` bytes; None: nothing waits.

        They are remembered as undelivered until `done` is called with the batch.
        """
        with self._lock:
            for segment in self._segments:
                if segment.taken < segment.frames and (batch := self._read(segment, count, size)):
                    return batch
        return None

    def done(self, batch: Batch) -> None:
        """The records of this batch, and all before, need not be kept."""
        with self._lock:
            while self._segments and self._segments[0].number < batch.segment:
                self._drop(self._segments[0])
            if self._segments and self._segments[0].number == batch.segment:
                first = self._segments[0]
                if len(self._segments) > 1 and first.taken == first.frames:
                    self._drop(first)
            self._write_cursor(batch.segment, batch.offset)

    def close(self) -> None:
        """Sync and free the files; what waits stays on disk."""
        self.sync()
        with self._lock:
            for fd in (self._fd, self._guard):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._guard = -1

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:012d}{_SUFFIX}"

    def _room(self, size: int) -> _Segment:
        """The segment to append to. Raises OSError."""
        last = self._segments[-1] if self._segments else None
        if last is None or self._fd < 0 or last.size + size > self._segment_max:
            self._new_segment(last.number + 1 if last else self._next)
        held = sum(segment.size for segment in self._segments)
        while held + size > self.size_max and len(self._segments) > 1:
            oldest = self._segments[0]
            self.lost["queue_full"] += oldest.frames - oldest.taken
            held -= oldest.size
            self._drop(oldest)
        return self._segments[-1]

    def _new_segment(self, number: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path(number), flags, 0o600)
        if self._fd >= 0:
            if self._dirty:
                os.fdatasync(self._fd)
            os.close(self._fd)
        self._fd = fd
        self._segments.append(_Segment(number))
        self._next = number + 1

    def _drop(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        with contextlib.suppress(OSError):
            self._path(segment.number).unlink()
        if not self._segments and self._fd >= 0:  # it was the one that is written to
            os.close(self._fd)
            self._fd = -1

    def _read(self, segment: _Segment, count: int, size: int) -> Batch | None:
        found: list[bytes] = []
        held = 0
        try:
            with self._path(segment.number).open("rb") as file:
                file.seek(segment.offset)
                for payload, end in _frames(file.read(max(size, RECORD_MAX + _FRAME.size)), segment.offset):
                    if found and held + len(payload) > size:
                        break
                    found.append(payload)
                    held += len(payload)
                    segment.offset = end
                    if len(found) == count:
                        break
        except OSError:
            found = []
        if not found:  # the file was changed under us
            self.lost["corrupt"] += segment.frames - segment.taken
            segment.taken = segment.frames
            return None
        segment.taken += len(found)
        return Batch(tuple(found), segment.number, segment.offset)

    def _write_cursor(self, segment: int, offset: int) -> None:
        new = self.directory / "cursor.new"
        with contextlib.suppress(OSError):  # then more is sent again after a restart
            new.write_text(f"{segment} {offset}\n")
            new.replace(self.directory / "cursor")

    def _recover(self) -> None:
        """What an agent before us left behind. A new segment is begun: the last may end torn."""
        at, offset = _cursor(self.directory / "cursor")
        numbers = sorted(int(path.stem) for path in self.directory.glob("*" + _SUFFIX) if path.stem.isdigit())
        self._next = max([*numbers, at], default=0) + 1
        for number in numbers:
            segment = _Segment(number)
            if number < at or not self._scan(segment, offset if number == at else 0):
                with contextlib.suppress(OSError):
                    self._path(number).unlink()
            else:
                self._segments.append(segment)

    def _scan(self, segment: _Segment, offset: int) -> bool:
        """Count the frames; False when none is left to deliver."""
        try:
            data = self._path(segment.number).read_bytes()
        except OSError:
            self.lost["corrupt"] += 1
            return False
        segment.size = len(data)
        end = 0
        for _, end in _frames(data):
            segment.frames += 1
            if end <= offset:
                segment.taken += 1
                segment.offset = end
        if end < len(data):
            self.lost["corrupt"] += 1
        return segment.taken < segment.frames


def _frames(data: bytes, base: int = 0) -> Iterator[tuple[bytes, int]]:
    """(payload, offset behind it) of each whole and sound frame."""
    at = 0
    while at + _FRAME.size <= len(data):
        length, crc = _FRAME.unpack_from(data, at)
        end = at + _FRAME.size + length
        payload = data[at + _FRAME.size : end]
        if length > RECORD_MAX or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield payload, base + end
        at = end


def _cursor(path: Path) -> tuple[int, int]:
    try:
        words = path.read_text().split()
        return int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return 0, 0


def _own(directory: Path) -> int:
    """Make the directory, and hold it: two agents must not share a queue."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Error(
            f"the queue {directory} cannot be used: {error.strerror}", hint="choose with --alerts-queue-dir"
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise Error(
            f"another agent uses the queue {directory}", hint="choose with --alerts-queue-dir"
        ) from error
    return fd
