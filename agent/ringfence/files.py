# SPDX-License-Identifier: Apache-2.0
"""Reading and replacing files of the agent's state and configuration."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

__all__ = ["read_regular", "replace_file"]


def read_regular(path: Path, most: int) -> bytes:
    """Reads a regular file of at most `most` bytes. Raises OSError, also for a FIFO or device."""
    # O_NONBLOCK: opening a FIFO must not block.
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def replace_file(path: Path, data: bytes) -> None:
    """Replaces a file atomically, readable for root only: readers see the old or the new contents.

    It is not synced to disk. On OSError the previous file remains.
    """
    fresh = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with open(os.open(fresh, flags, 0o600), "wb") as file:
            file.write(data)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
