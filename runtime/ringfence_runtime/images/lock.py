# SPDX-License-Identifier: Apache-2.0
"""Advisory locks of the store (flock on a file that is never removed)."""

from __future__ import annotations

import fcntl
import os

from ringfence_runtime.images.errors import InUseError

__all__ = ["Lock"]


class Lock:
    """An advisory lock on a file of the store; the kernel releases it when its holder ends."""

    __slots__ = ("_busy", "_fd", "_path", "_wait")

    def __init__(self, path: str, *, wait: bool = True, busy: str = "the store is busy") -> None:
        self._path = path
        self._wait = wait
        self._busy = busy
        self._fd = -1

    def __enter__(self) -> Lock:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if self._wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(self._fd)
            raise InUseError(self._busy, hint="try again when it is done") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
