# SPDX-License-Identifier: Apache-2.0
"""A command in a separate process: a fork of the launcher that executes the code of the cold command."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import os
import sys

from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.launcher.protocol import ENDED, RUNNING, Request, answer
from ringfence_runtime.launcher.waiting import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.waiting import Task

__all__ = ["work"]


def work(peer: _socket.socket, request: Request, server: _socket.socket) -> Task[None]:
    """Forks a worker, which answers the client itself, and waits for its end."""
    pid, pidfd = syscalls.clone3(0)
    if pid == 0:
        server.close()
        for number in (_signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, _signal.SIG_DFL)
        answer(peer, RUNNING, os.getpid())
        _become(peer, request)
    request.close()
    peer.close()
    try:
        yield Fd(pidfd)
        os.waitpid(pid, 0)
    finally:
        os.close(pidfd)


def _become(peer: _socket.socket, request: Request) -> None:
    """In the worker: takes the caller's streams, directory and environment, runs the command, sends its
    exit code.
    """
    from ringfence_runtime.cli import main

    code = 1
    try:
        os.setsid()
        for number, fd in enumerate(request.fds):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(request.directory)
        os.umask(request.umask)
        os.environ.clear()
        os.environ.update(request.environment())
        code = main(request.arguments)
        sys.stdout.flush()
    except OSError as error:
        log.error(str(error))
    finally:
        answer(peer, ENDED, code)
        os._exit(code)
