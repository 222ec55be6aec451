# SPDX-License-Identifier: Apache-2.0
"""Files of the agent's state, configuration and output."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

__all__ = ["SocketFile", "forget_cache", "read_regular"]


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


def forget_cache(fd: int) -> None:
    """Gives up the page cache of a file, as far as it is written to the disk; starts to write the rest.

    Page cache counts against the agent's memory limit (ringfence.daemon.health.memory_reserve).
    """
    with contextlib.suppress(OSError):  # a pipe, or a filesystem without cache
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


class SocketFile:
    """Remembers the file of a listening socket, to notice that it was deleted or replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bound = self._now()

    def is_there(self) -> bool:
        """Returns True if the path still leads to this socket."""
        return self._bound is not None and self._now() == self._bound

    def _now(self) -> tuple[int, int, int] | None:
        with contextlib.suppress(OSError):
            found = self._path.lstat()
            return found.st_dev, found.st_ino, stat.S_IFMT(found.st_mode)
        return None
