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
from ringfence_runtime.launcher.inline_run import inline_run
from ringfence_runtime.launcher.protocol import NOT_TAKEN, SOCKET, receive, tell
from ringfence_runtime.launcher.waiting import Fd, Waiting
from ringfence_runtime.launcher.worker import work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.waiting import Task

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


class _World:
    """What a caller's request depends on: its namespaces, root and rights. The launcher must not do more for
    a caller than the caller could do itself.
    """

    def __init__(self, pid: int | str) -> None:
        places = [f"/proc/{pid}/root", *(f"/proc/{pid}/ns/{name}" for name in _NAMESPACES)]
        self.places = [(status.st_dev, status.st_ino) for status in map(os.stat, places)]
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = dict(line.split(b":\t", 1) for line in file.read().splitlines() if b":\t" in line)
        self.capabilities = [int(lines[name], 16) for name in (b"CapPrm", b"CapEff", b"CapBnd")]
        self.fences = [lines.get(name) for name in (b"NoNewPrivs", b"Seccomp", b"Seccomp_filters")]
        self.label = _label(pid)

    def serves(self, caller: _World) -> bool:
        """Whether a caller in that world loses and gains nothing if we do it here."""
        if (caller.places, caller.fences, caller.label) != (self.places, self.fences, self.label):
            return False
        pairs = zip(self.capabilities, caller.capabilities, strict=True)
        return all(own & ~theirs == 0 for own, theirs in pairs)


def _label(pid: int | str) -> bytes:
    """What AppArmor or SELinux calls it; empty where neither is in force."""
    try:
        with open(f"/proc/{pid}/attr/current", "rb") as file:
            return file.read()
    except OSError:
        return b""


class Server:
    """The listening socket, and what to do with who connects."""

    def __init__(self, path: str) -> None:
        self.socket = listen(path)
        self.waiting = Waiting()
        self._world = _World("self")

    def serve(self) -> None:
        """Until a signal ends it."""
        self.waiting.start(self._accept())
        while True:
            self.waiting.turn()

    def _accept(self) -> Task[None]:
        while True:
            yield Fd(self.socket.fileno())
            fd, _ = self.socket._accept()  # type: ignore[attr-defined]
            peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
            self.waiting.start(self._answer(peer))

    def _answer(self, peer: _socket.socket) -> Task[None]:
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
        found = inline_run(peer, request)
        yield from work(peer, request, self.socket) if found is None else found.steps()

    def _same_world(self, pid: int) -> bool:
        """Whether the caller lives as we do: paths and pids mean the same then, and he may do what we may."""
        try:
            return self._world.serves(_World(pid))
        except (OSError, KeyError, ValueError):
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
