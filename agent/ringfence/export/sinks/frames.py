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

from ringfence.errors import Error

__all__ = ["HEADER_SIZE", "RECORD_MAX", "frame", "frames", "own", "read_cursor", "write_cursor"]

_HEADER = struct.Struct("<II")  # length and CRC-32 of the payload
HEADER_SIZE = _HEADER.size
RECORD_MAX = 1 << 20


def frame(payload: bytes) -> bytes:
    """Returns a payload as it is written."""
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def frames(data: bytes, base: int = 0) -> Iterator[tuple[bytes, int]]:
    """Yields (payload, offset after it) of each valid frame, up to the first invalid one."""
    at = 0
    while at + HEADER_SIZE <= len(data):
        length, crc = _HEADER.unpack_from(data, at)
        end = at + HEADER_SIZE + length
        payload = data[at + HEADER_SIZE : end]
        if length > RECORD_MAX or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield payload, base + end
        at = end


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
