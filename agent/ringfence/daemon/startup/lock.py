# SPDX-License-Identifier: Apache-2.0
"""One agent per node: a file lock, which the kernel releases however its holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from ringfence.errors import AlreadyRunningError, Error, NotPermittedError

__all__ = ["Lock"]


class Lock:
    """Held from construction to `close`. Raises AlreadyRunningError, with the holder's pid, if it
    is taken.

    The file is opened for reading: in a pod, pinned programs of an earlier agent kill a process
    that opens a file of its state directory for writing. `sign` writes this process's pid, once
    that is not possible any more.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "agent.lock"
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except PermissionError as error:
            raise NotPermittedError(
                f"{self.path}: {error.strerror}", hint="the agent needs root: use sudo"
            ) from error
        except OSError as error:
            raise Error(f"{self.path}: {error.strerror}", hint="choose with `--state-dir PATH`") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise AlreadyRunningError(
                f"another agent runs on this node (pid {holder or 'unknown'}, {self.path})",
                hint="`ringfence status` asks it; end it before starting another",
            ) from error

    def sign(self) -> None:
        """Write this process's pid, for the message of a second agent. An error (a full disk) is
        ignored.
        """
        with contextlib.suppress(OSError):
            fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            finally:
                os.close(fd)

    def close(self, *, remove: bool = False) -> None:
        """Release it. The file stays unless `remove`: an unlinked path could be locked twice."""
        if remove:
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._fd)
