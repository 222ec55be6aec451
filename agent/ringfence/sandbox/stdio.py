# SPDX-License-Identifier: Apache-2.0
"""Standard input and output of a sandbox in the foreground, without the host's descriptors.

A workload with the host's terminal can inject input into it (TIOCSTI, CVE-2017-5226), and one with a
file of the host cannot open /dev/stdout again under Landlock. So it gets pipes, and this process copies.
An inherited pipe is passed on as it is.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat

__all__ = ["Streams"]

_SIZE = 65536
_DRAIN = 2000  # ms that a descriptor may stay open when the workload has ended


def _is_plain_pipe(fd: int) -> bool:
    """Returns True for an anonymous pipe: it is on no filesystem, so its holder can open it again."""
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode) and os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")
    except OSError:
        return False


class Streams:
    """Replaces 0, 1 and 2 by pipes for a child (`lend`), restores them (`restore`), copies (`carry`)."""

    def __init__(self, *, interactive: bool) -> None:
        self.interactive = interactive
        self._saved: dict[int, int] = {}
        self._from: dict[int, int] = {}  # own end of a pipe -> the descriptor that it is copied to
        self._input = -1  # own end of the pipe to its standard input
        self._pending = b""

    def lend(self) -> None:
        """Gives the pipes to programs started from now on."""
        for fd in (0, 1, 2):
            if fd == 0 and not self.interactive:
                self._put(0, self._empty())
            elif not _is_plain_pipe(fd):
                reading, writing = os.pipe2(os.O_CLOEXEC)
                if fd == 0:
                    self._input = writing
                    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
                    self._put(0, reading)
                else:
                    self._from[reading] = fd
                    self._put(fd, writing)

    def _empty(self) -> int:
        """Returns a pipe at its end. (/dev/null is a host file: Landlock would prevent opening it again.)"""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.close(writing)
        return reading

    def _put(self, fd: int, other: int) -> None:
        try:
            self._saved[fd] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError as error:
            if error.errno != errno.EBADF:  # it may be closed
                raise
            self._saved[fd] = -1
        os.dup2(other, fd)
        os.close(other)

    def restore(self) -> None:
        """Restores the own descriptors; idempotent."""
        for fd, saved in self._saved.items():
            if saved >= 0:
                os.dup2(saved, fd)
                os.close(saved)
            else:
                os.close(fd)
        self._saved = {}

    def forget(self) -> None:
        """Closes the own ends in a forked child, which would otherwise prevent an end of file."""
        for fd in (*self._from, *self._saved.values(), self._input):
            if fd >= 0:
                os.close(fd)

    def carry(self, pidfd: int) -> None:
        """Copies until the process ends, and then the rest in the pipes."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        for fd in self._from:
            poll.register(fd, select.POLLIN)
        if self._input >= 0:
            poll.register(0, select.POLLIN)
        ended = False
        while self._from or not ended:
            ready = dict(poll.poll(_DRAIN if ended else None))
            if ended and not ready:
                break
            if pidfd in ready:
                ended = True
                poll.unregister(pidfd)
            for fd in [fd for fd in ready if fd in self._from]:
                if not self._copy(fd):
                    poll.unregister(fd)
                    os.close(fd)
                    del self._from[fd]
            if self._input >= 0 and not ended:
                self._feed(poll, ready)

    def _copy(self, fd: int) -> bool:
        """Copies one piece of output. Returns False at its end, or if the reader is gone."""
        view = memoryview(os.read(fd, _SIZE))
        more = len(view) > 0
        try:
            while view:
                view = view[os.write(self._from[fd], view) :]
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF, errno.EIO):
                raise
            return False
        return more

    def _feed(self, poll: select.poll, ready: dict[int, int]) -> None:
        """Copies one piece of input. No more is read until the workload has read it."""
        if 0 in ready:
            try:
                self._pending = os.read(0, _SIZE)
            except OSError:
                self._pending = b""
            poll.unregister(0)
            if not self._pending:
                self._end_input()
                return
            poll.register(self._input, select.POLLOUT)
        elif self._input in ready:
            try:
                self._pending = self._pending[os.write(self._input, self._pending) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                poll.unregister(self._input)
                self._end_input()
                return
            if not self._pending:
                poll.unregister(self._input)
                poll.register(0, select.POLLIN)

    def _end_input(self) -> None:
        os.close(self._input)
        self._input = -1
