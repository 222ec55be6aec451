# SPDX-License-Identifier: Apache-2.0
"""A bounded queue of records on disk for one receiver.

Segment files hold frames; `cursor` is the receiver's position. An appended record survives the
agent's death immediately, and a power cut after `sync`. A partial or damaged frame costs that record
only, is counted, and is passed to `damaged`. Records that the disk does not take (if it is full) wait in
memory, are delivered from there, and are written as soon as possible. Delivery is at least once: records in
flight when the agent died are sent again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ringfence.export.sinks.frames import (
    HEADER_SIZE,
    RECORD_MAX,
    Frame,
    frame,
    frames,
    own,
    read_cursor,
    write_cursor,
)
from ringfence.files import forget_cache

__all__ = ["Batch", "Damaged", "Spool"]

#: gets the file and the offset of a damaged frame, and how many records are lost
Damaged = Callable[[Path, int, int], None]

_SUFFIX = ".seg"
_SEGMENTS = 16  # of a full queue
_MEMORY = 4 << 20  # maximum bytes that wait for the disk
_IN_MEMORY = -1  # segment of a batch that is not on disk


class _Segment:
    """One file: its bytes and valid frames, and how many of the frames were taken."""

    __slots__ = ("damaged", "frames", "number", "offset", "size", "taken")

    def __init__(self, number: int) -> None:
        self.number = number
        self.size = self.frames = self.taken = 0
        self.offset = 0  # of the first frame that was not taken
        self.damaged: set[int] = set()  # offsets of damaged frames that are counted already


class Batch(NamedTuple):
    """Records in the order of appending, and the queue's position after them."""

    records: tuple[bytes, ...]
    segment: int
    offset: int


class Spool:
    """One thread appends, one takes. `records` counts those not taken yet.

    `lost` by reason: queue_full (the oldest was removed), corrupt, too_large, disk_error (the disk did
    not take it, and the memory was full). `sync_errors` counts failed syncs.
    """

    def __init__(
        self,
        directory: Path,
        size_max: int,
        memory_max: int = _MEMORY,
        damaged: Damaged = lambda path, offset, records: None,
    ) -> None:
        self.directory, self.size_max, self._memory_max = directory, size_max, memory_max
        self._damaged = damaged
        self.lost: Counter[str] = Counter()
        self.sync_errors = 0
        self._segment_max = max(size_max // _SEGMENTS, 4096)
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._segments: deque[_Segment] = deque()
        self._memory: deque[bytes] = deque()  # records that the disk did not take; newer than all segments
        self._memory_size = 0
        #: why the disk did not take the last record; empty: it did
        self.refused = ""
        self._lent = 0  # number of those in flight
        self._moved: tuple[int, int] | None = None  # end of those that were written to disk meanwhile
        self._out = 0  # records in flight
        self._in_flight: set[int] = set()  # segments of the records in flight
        self._fd = -1
        self._dirty = self._new_names = False
        self._guard, self._directory_fd = own(directory)
        self._recover()

    @property
    def records(self) -> int:
        """The number of records not taken yet."""
        with self._lock:
            return self._waiting()

    @property
    def undelivered(self) -> int:
        """The number of records not taken yet or in flight."""
        with self._lock:
            return self._waiting() + self._out

    @property
    def held(self) -> int:
        """The bytes of the files, including delivered records of unfinished segments."""
        with self._lock:
            return sum(segment.size for segment in self._segments)

    @property
    def in_memory(self) -> int:
        """The number of records that are only in memory."""
        with self._lock:
            return len(self._memory)

    def append(self, payload: bytes) -> bool:
        """Appends one record. Returns False if it could not be kept, which is counted."""
        if len(payload) > RECORD_MAX:
            self.lost["too_large"] += 1
            return False
        with self._lock:
            kept = (self._flush() and self._write(payload)) or self._remember(payload)
            self._more.notify()
        return kept

    def sync(self) -> None:
        """Syncs appended records and the names of new files to disk."""
        with self._lock:
            self._flush()
            if not (self._dirty or self._new_names) or self._fd < 0:
                return
            fds: list[int] = []
            new_names, self._dirty, self._new_names = self._new_names, False, False
            try:
                fds.append(os.dup(self._fd))
                if new_names:
                    fds.append(os.dup(self._directory_fd))
            except OSError:
                self._unsynced(new_names=new_names)
        try:
            for fd, force in zip(fds, (os.fdatasync, os.fsync), strict=False):
                force(fd)
        except OSError:
            with self._lock:
                self._unsynced(new_names=new_names)
        finally:
            for fd in fds:
                os.close(fd)

    def wait(self, seconds: float) -> bool:
        """Waits until there is a record to take. Returns False after `seconds`."""
        with self._more:
            return self._more.wait_for(self._has_records, seconds)

    def wake(self) -> None:
        """End a `wait` early."""
        with self._more:
            self._more.notify_all()

    def take(self, count: int, size: int) -> Batch | None:
        """Returns the next records of one segment, at most `count` and about `size` bytes; None: none.

        They stay undelivered until `done` is called with the batch. Raises OSError if they cannot be
        read now: nothing is lost.
        """
        with self._lock:
            for segment in self._segments:
                if segment.taken < segment.frames and (batch := self._read(segment, count, size)):
                    self._in_flight.add(segment.number)
                    break
            else:
                batch = self._lend(count, size)
            self._out += len(batch.records) if batch else 0
            return batch

    def done(self, batch: Batch) -> None:
        """Marks the records of this batch, and all earlier ones, as delivered."""
        with self._lock:
            self._out -= len(batch.records)
            self._in_flight.clear()
            if batch.segment != _IN_MEMORY:
                self._settle(batch.segment, batch.offset)
                return
            for _ in range(self._lent):
                self._memory_size -= len(self._memory.popleft())
            self._lent = 0
            if self._moved is not None:
                self._settle(*self._moved)
                self._moved = None

    def close(self) -> None:
        """Syncs and closes the files; waiting records stay on disk."""
        with self._lock:
            self._lent = 0  # the next agent sends records in flight again
            self._flush()
            self.lost["disk_error"] += len(self._memory)
            self._memory.clear()
        self.sync()
        with self._lock:
            for fd in (self._fd, self._guard, self._directory_fd):
                if fd >= 0:
                    os.close(fd)
            self._fd = self._guard = self._directory_fd = -1

    def _waiting(self) -> int:
        on_disk = sum(segment.frames - segment.taken for segment in self._segments)
        return on_disk + len(self._memory) - self._lent

    def _settle(self, number: int, offset: int) -> None:
        """Records that everything up to this position of a segment is delivered."""
        while self._segments and self._segments[0].number < number:
            self._drop(self._segments[0])
        if self._segments and self._segments[0].number == number:
            first = self._segments[0]
            if len(self._segments) > 1 and first.taken == first.frames:
                self._drop(first)
        write_cursor(self.directory, number, offset)

    def _has_records(self) -> bool:
        return len(self._memory) > self._lent or any(s.taken < s.frames for s in self._segments)

    def _unsynced(self, *, new_names: bool) -> None:
        """Counts a failed sync, which is tried again the next time."""
        self.sync_errors += 1
        self._dirty, self._new_names = True, self._new_names or new_names

    def _write(self, payload: bytes) -> bool:
        """Writes to the last segment. Returns False if the disk does not take it."""
        data = frame(payload)
        try:
            segment = self._segment_for(len(data))
            if os.pwrite(self._fd, data, segment.size) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.refused = error.strerror or type(error).__name__
            return False
        self.refused = ""
        segment.size += len(data)
        segment.frames += 1
        self._dirty = True
        return True

    def _flush(self) -> bool:
        """Writes the records in memory, in flight or not. Returns False if some must stay."""
        while self._memory:
            if not self._write(self._memory[0]):
                return False
            self._memory_size -= len(self._memory.popleft())
            if self._lent:  # in flight, and with it everything on disk
                last = self._segments[-1]
                last.taken, last.offset = last.taken + 1, last.size
                self._lent, self._moved = self._lent - 1, (last.number, last.size)
                self._in_flight.add(last.number)
        return True

    def _remember(self, payload: bytes) -> bool:
        if self._memory_size + len(payload) > self._memory_max:
            self.lost["disk_error"] += 1
            return False
        self._memory.append(payload)
        self._memory_size += len(payload)
        return True

    def _lend(self, count: int, size: int) -> Batch | None:
        found: list[bytes] = []
        for payload in list(self._memory)[self._lent :][:count]:
            if found and sum(map(len, found)) + len(payload) > size:
                break
            found.append(payload)
        self._lent += len(found)
        return Batch(tuple(found), _IN_MEMORY, 0) if found else None

    def _path(self, number: int) -> Path:
        return self.directory / f"{number:012d}{_SUFFIX}"

    def _segment_for(self, size: int) -> _Segment:
        """Returns the segment to append to. Raises OSError."""
        last = self._segments[-1] if self._segments else None
        if last is None or self._fd < 0 or last.size + size > self._segment_max:
            self._new_segment(last.number + 1 if last else self._next)
        held = sum(segment.size for segment in self._segments)
        for oldest in list(self._segments)[:-1]:
            if held + size <= self.size_max:
                break
            if oldest.number in self._in_flight:
                continue  # the holder of its records may end before they are delivered
            self.lost["queue_full"] += oldest.frames - oldest.taken
            held -= oldest.size
            self._drop(oldest)
        return self._segments[-1]

    def _new_segment(self, number: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._path(number), flags, 0o600)
        if self._fd >= 0:
            if self._dirty:
                with contextlib.suppress(OSError):
                    os.fdatasync(self._fd)
            forget_cache(self._fd)
            os.close(self._fd)
        self._fd, self._new_names = fd, True
        self._segments.append(_Segment(number))
        self._next = number + 1

    def _drop(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        with contextlib.suppress(OSError):
            self._path(segment.number).unlink()
        if not self._segments and self._fd >= 0:  # it was the one being written
            os.close(self._fd)
            self._fd = -1

    def _read(self, segment: _Segment, count: int, size: int) -> Batch | None:
        found: list[bytes] = []
        held = 0
        for payload, start, end in self._frames_from(segment, size):
            if payload is None:
                # One that is counted already is not among the frames; the others became damaged since.
                if start not in segment.damaged:
                    self._corrupt(segment, start, 1)
                    segment.taken += 1
            elif found and held + len(payload) > size:
                break
            else:
                found.append(payload)
                held += len(payload)
            segment.offset = end
            if len(found) == count:
                break
        segment.taken += len(found)
        if not found or segment.taken > segment.frames:  # another process changed the file
            self._corrupt(segment, segment.offset, max(0, segment.frames - segment.taken))
            segment.taken = segment.frames
        return Batch(tuple(found), segment.number, segment.offset) if found else None

    def _frames_from(self, segment: _Segment, size: int) -> Iterator[Frame]:
        """Yields the frames that were not taken: at least one, if there is one, or about `size` bytes."""
        offset, left = segment.offset, segment.size - segment.offset  # behind it: a write that failed
        wanted = min(max(size, RECORD_MAX + HEADER_SIZE), left)
        some = False
        with contextlib.suppress(FileNotFoundError), self._path(segment.number).open("rb") as file:
            file.seek(offset)
            for one in frames(file.read(wanted), offset, whole=wanted == left):
                some = True
                yield one
            if not some and wanted < left:  # damage that is larger than a batch
                file.seek(offset)
                yield from frames(file.read(left), offset)

    def _corrupt(self, segment: _Segment, offset: int, records: int) -> None:
        if records:
            self.lost["corrupt"] += records
            self._damaged(self._path(segment.number), offset, records)

    def _recover(self) -> None:
        """Reads an earlier agent's files; starts a new segment, as the last may end in a partial frame."""
        at, offset = read_cursor(self.directory)
        names = [path.stem for path in self.directory.glob("*" + _SUFFIX)]
        numbers = sorted(int(name) for name in names if name.isascii() and name.isdigit())
        self._next = max([*numbers, at], default=0) + 1
        for number in numbers:
            segment = _Segment(number)
            if number < at or not self._scan(segment, offset if number == at else 0):
                with contextlib.suppress(OSError):
                    self._path(number).unlink()
            else:
                self._segments.append(segment)

    def _scan(self, segment: _Segment, offset: int) -> bool:
        """Counts the frames. Returns False if none is left to deliver."""
        try:
            data = self._path(segment.number).read_bytes()
        except OSError:
            self._corrupt(segment, 0, 1)
            return False
        segment.size = len(data)
        for payload, start, end in frames(data):
            if payload is None:
                segment.damaged.add(start)
                if start >= offset:  # otherwise it is delivered
                    self._corrupt(segment, start, 1)
                continue
            segment.frames += 1
            if end <= offset:
                segment.taken += 1
                segment.offset = end
        return segment.taken < segment.frames
