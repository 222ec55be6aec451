# SPDX-License-Identifier: Apache-2.0
"""A state file of the agent that no other process may change."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["GuardedFile"]


class GuardedFile:
    """`renew` writes the file again, through `write`. From any thread."""

    def __init__(self, path: Path, renew: Callable[[], object]) -> None:
        self.path, self.renew = path, renew
        self._lock = threading.Lock()
        self._left: tuple[int, ...] | None = None

    def write(self, act: Callable[[], object]) -> None:
        """Call `act`, which writes the file, and remember its state. Raises what `act` raises."""
        with self._lock:
            try:
                act()
            finally:
                self._left = self._now()

    def as_left(self) -> bool:
        """Returns True if the file is as `write` left it, or was never written."""
        with self._lock:
            return self._left is None or self._now() == self._left

    def _now(self) -> tuple[int, ...] | None:
        with suppress(OSError):
            found: os.stat_result = self.path.lstat()
            # not the time of the last read
            return (
                found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_nlink,
                found.st_size, found.st_mtime_ns,
            )  # fmt: skip
        return None
