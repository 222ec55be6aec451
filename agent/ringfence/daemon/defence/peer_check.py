# SPDX-License-Identifier: Apache-2.0
"""Decides which processes may use the agent's sockets. Root of a container is root as well, so the
kernel is asked whether the peer is armed.

With BPF-LSM, an armed task cannot connect at all. Otherwise its connection is closed here unread,
and reported. The peer is looked up by a pidfd, because its pid may have been reused; before Linux
6.5 that pidfd is opened by pid.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from ringfence import wire
from ringfence.abi import NO_CALL, TASK, Action, EventKind, Tamper, TaskValue
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.events import Event
from ringfence_linux.peercred import peer

__all__ = ["PeerCheck"]

_SO_PEERPIDFD = 77  # include/uapi/asm-generic/socket.h, 6.5 (7b26952a91cf)
_COMM = 15


class PeerCheck:
    """`report` gets an event, and is called in the thread of the caller."""

    def __init__(self, config: Config, kernel: Kernel, report: Callable[[Event], None]) -> None:
        self._kernel, self._report = kernel, report
        self._guards, self._denies = bool(kernel.guarding), config.defence == "deny"

    def refuses(self, connection: socket.socket) -> bool:
        """Returns True if this peer must not be served. From any thread."""
        if not self._guards:
            return False
        pid, uid, gid = peer(connection)
        task = self._task_of(connection, pid)
        if task is None:  # ended, or in a pid namespace that is not visible: unknown
            return self._denies
        if not task.container:
            return False
        self._report(self._event(connection, task, pid, uid, gid))
        return self._denies

    def _task_of(self, connection: socket.socket, pid: int) -> TaskValue | None:
        """The probes' entry of the peer; container 0: it has none. None: the peer has ended."""
        try:
            pidfd = _peer_pidfd(connection, pid)
        except OSError:
            return None
        try:
            raw = self._kernel.map("tasks").get(pidfd)
            signal.pidfd_send_signal(pidfd, 0)  # still alive: the entry of an ended task proves nothing
        except OSError:
            return None
        finally:
            os.close(pidfd)
        return TaskValue._make(TASK.unpack(raw[: TASK.size])) if raw else TaskValue(0, 0, 0, 0, 0)

    def _event(self, connection: socket.socket, task: TaskValue, pid: int, uid: int, gid: int) -> Event:
        comm = b""
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
            comm = file.read(_COMM).rstrip(b"\n")
        fields: dict[str, Any] = {
            "action": Action.DENY if self._denies else Action.ALERT,
            "time_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            "slot": task.slot,
            "container": task.container,
            "start_ns": task.start_ns,
            "pid": pid,
            "tid": pid,
            "uid": uid,
            "gid": gid,
            "comm": comm,
            "what": Tamper.SOCKET,
            "nr": NO_CALL,
            "agent_pid": os.getpid(),
            "path": os.fsencode(connection.getsockname())[:255],
        }
        return wire.make(EventKind.AGENT_TAMPER, **fields)


def _peer_pidfd(connection: socket.socket, pid: int) -> int:
    """Raises OSError if the process has ended."""
    try:
        return connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        if pid <= 0 or error.errno != errno.ENOPROTOOPT:
            raise
        return os.pidfd_open(pid)
