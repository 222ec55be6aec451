# SPDX-License-Identifier: Apache-2.0
"""A queue's files: frames (length, CRC-32, payload), the cursor, and the lock of the directory.

Corrupt data is detected, never used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ringfence.errors import Error

__all__ = ["HEADER_SIZE", "RECORD_MAX", "Frame", "frame", "frames", "own", "read_cursor", "write_cursor"]

_HEADER = struct.Struct("<II")  # length and CRC-32 of the payload
HEADER_SIZE = _HEADER.size
RECORD_MAX = 1 << 20


def frame(payload: bytes) -> bytes:
    """Returns a payload as it is written."""
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


class Frame(NamedTuple):
    """One frame of a file. `payload` None: it is damaged, and ends where the next valid one begins."""

    payload: bytes | None
    start: int
    end: int


def frames(data: bytes, base: int = 0, *, whole: bool = True) -> Iterator[Frame]:
    """Yields the frames of a file's bytes from offset `base` on. A damaged frame costs that frame only.

    `whole`: the data ends where the file does, so an incomplete frame at the end is damaged, too. Otherwise
    the frames end before damage that no valid frame follows.
    """
    at = 0
    while at < len(data):
        end = _end_of(data, at)
        damaged = not end
        if damaged:
            end = _next_valid(data, at) or (len(data) if whole else 0)
            if not end:
                return
        yield Frame(None if damaged else data[at + HEADER_SIZE : end], base + at, base + end)
        at = end


def _end_of(data: bytes, at: int) -> int:
    """Returns the end of the valid frame at `at`; 0: there is none. A frame has at least one byte."""
    if at + HEADER_SIZE > len(data):
        return 0
    length, crc = _HEADER.unpack_from(data, at)
    end = at + HEADER_SIZE + length
    if not 0 < length <= RECORD_MAX or end > len(data):
        return 0
    return end if zlib.crc32(data[at + HEADER_SIZE : end]) == crc else 0


def _next_valid(data: bytes, at: int) -> int:
    """Returns the start of the first valid frame after a damaged one at `at`; 0: there is none."""
    if at + HEADER_SIZE <= len(data):
        # If its length is right, the next frame is behind it: no byte of the payload is taken for a frame.
        end = at + HEADER_SIZE + int(_HEADER.unpack_from(data, at)[0])
        if end <= len(data) and (end == len(data) or _end_of(data, end)):
            return end
    # The highest byte of each length is 0, and no payload (a line of JSON) contains a 0.
    zero = data.find(b"\0", at + 4)
    while zero >= 0:
        if _end_of(data, zero - 3):
            return zero - 3
        zero = data.find(b"\0", zero + 1)
    return 0


def read_cursor(directory: Path) -> tuple[int, int]:
    """Returns the receiver's position: segment, offset."""
    try:
        words = (directory / "cursor").read_text().split()
        return int(words[0]), int(words[1])
    except (OSError, ValueError, IndexError):
        return 0, 0


def write_cursor(directory: Path, segment: int, offset: int) -> None:
    """Writes the position atomically. If this fails, more records are sent again after a restart."""
    new = directory / "cursor.new"
    with contextlib.suppress(OSError):
        new.write_text(f"{segment} {offset}\n")
        new.replace(directory / "cursor")


def own(directory: Path) -> tuple[int, int]:
    """Creates and locks the directory: two agents must not share a queue.

    Returns the descriptors of the lock and of the directory. Raises Error.
    """
    hint = "choose with --alerts-queue-dir"
    held: list[int] = []
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        held.append(os.open(directory / "lock", os.O_RDWR | os.O_CREAT | flags, 0o600))
        held.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | flags))
        fcntl.flock(held[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        for fd in held:
            os.close(fd)
        if isinstance(error, BlockingIOError):
            raise Error(f"another agent uses the queue {directory}", hint=hint) from error
        raise Error(f"the queue {directory} cannot be used: {error.strerror}", hint=hint) from error
    return held[0], held[1]
