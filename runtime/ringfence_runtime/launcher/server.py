# SPDX-License-Identifier: Apache-2.0
"""The launcher's socket, and who may use it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os
from _struct import unpack

from ringfence_runtime import log
from ringfence_runtime.cgroup.hierarchy import detect
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.starting import keep_spawner
from ringfence_runtime.launcher.plain import plain
from ringfence_runtime.launcher.protocol import NOT_TAKEN, SOCKET, receive, tell
from ringfence_runtime.launcher.waiting import Fd, Waiting
from ringfence_runtime.launcher.worker import work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.steps import Steps

__all__ = ["serve"]

_SO_PEERCRED = 17
_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts", "cgroup")
# A caller that connects and says nothing is not waited for longer.
_SECONDS_TO_SPEAK = 1.0


def preload() -> None:
    """Import all that a command may need, so that a worker imports nothing."""
    from ringfence_runtime.cgroup import limits_v1, limits_v2, stats
    from ringfence_runtime.cli import execute, lifecycle
    from ringfence_runtime.launch import cgroupmount, console, idmap, join, notify, parent, relay, terminal
    from ringfence_runtime.security import labels, landlock, seccomp

    del (
        limits_v1,
        limits_v2,
        stats,
        execute,
        lifecycle,
        cgroupmount,
        console,
        idmap,
        join,
        notify,
        parent,
        relay,
    )
    del terminal, labels, landlock, seccomp


def listen(path: str) -> _socket.socket:
    """The socket, for this user alone. One that nobody answers on is taken over."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        probe.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        pass
    else:
        raise Error(f"a launcher listens on {path} already")
    finally:
        probe.close()
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        server.bind(path)
    finally:
        os.umask(before)
    server.listen(128)
    return server


def _namespaces(pid: int | str) -> list[int]:
    return [os.stat(f"/proc/{pid}/ns/{name}").st_ino for name in _NAMESPACES]


class Server:
    """The listening socket, and what to do with who connects."""

    def __init__(self, path: str) -> None:
        self.socket = listen(path)
        self.waiting = Waiting()
        self._own_namespaces = _namespaces("self")

    def serve(self) -> None:
        """Until a signal ends it."""
        self.waiting.start(self._accept())
        while True:
            self.waiting.turn()

    def _accept(self) -> Steps[None]:
        while True:
            yield Fd(self.socket.fileno())
            fd, _ = self.socket._accept()  # type: ignore[attr-defined]
            peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
            self.waiting.start(self._answer(peer))

    def _answer(self, peer: _socket.socket) -> Steps[None]:
        try:
            pid, uid, _ = unpack("3i", peer.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12))
            yield Fd(peer.fileno(), _SECONDS_TO_SPEAK)
            request = receive(peer)
        except (OSError, ValueError) as error:
            log.warn(f"launcher: {error}")
            peer.close()
            return
        if uid != os.geteuid() or not self._same_world(pid):
            tell(peer, NOT_TAKEN)
            request.close()
            peer.close()
            return
        found = plain(peer, request)
        yield from work(peer, request, self.socket) if found is None else found.steps()

    def _same_world(self, pid: int) -> bool:
        """Whether the caller lives in our namespaces: paths and pids mean the same then."""
        try:
            return _namespaces(pid) == self._own_namespaces
        except OSError:
            return False


def serve(path: str = SOCKET) -> int:
    """Serve until SIGTERM or SIGINT; workers and containers end by themselves."""
    preload()
    keep_spawner()
    detect(keep=True)
    server = Server(path)

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    _signal.signal(_signal.SIGTERM, stop)
    _signal.signal(_signal.SIGINT, stop)
    # What is here now stays, so the collector need not write to it; it looks after what comes.
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        server.serve()
    except KeyboardInterrupt:
        return 0
    finally:
        server.socket.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
    return 0
