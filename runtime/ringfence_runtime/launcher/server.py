# SPDX-License-Identifier: Apache-2.0
"""The launcher's socket, and the callers that may use it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os

from ringfence_linux import syscalls
from ringfence_linux.peercred import peer as credentials
from ringfence_runtime import log
from ringfence_runtime.cgroup.hierarchy import detect
from ringfence_runtime.errors import Error
from ringfence_runtime.launcher.inline_run import InlineRuns
from ringfence_runtime.launcher.protocol import NOT_TAKEN, SOCKET, answer, receive
from ringfence_runtime.launcher.waiting import Fd, Waiting
from ringfence_runtime.launcher.worker import work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.waiting import Task

__all__ = ["serve"]

_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts", "cgroup")
_MODULES = (
    "cgroup.limits_v1",
    "cgroup.limits_v2",
    "cgroup.stats",
    "cli.execute",
    "cli.lifecycle",
    "launch.console",
    "launch.idmap",
    "launch.join",
    "launch.notify",
    "launch.operations.cgroups",
    "launch.operations.python_only",
    "launch.operations.sequence",
    "launch.parent",
    "launch.relay",
    "launch.terminal",
    "security.labels",
    "security.landlock",
    "security.seccomp",
)
_FIRST_PASSED = 3  # SD_LISTEN_FDS_START
_SOCKET_FACTS = (_socket.SO_DOMAIN, _socket.SO_TYPE, _socket.SO_ACCEPTCONN)
# The longest wait for a caller that connected and sends nothing.
_SECONDS_TO_SPEAK = 1.0


def preload() -> None:
    """Imports all modules that a command may need, so that a worker imports nothing."""
    for name in _MODULES:
        __import__(f"ringfence_runtime.{name}")
    syscalls.load()


def listen(path: str) -> _socket.socket:
    """Creates the socket, for this user only. Replaces a socket on which no launcher answers."""
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
    _remove(path)
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        server.bind(path)
    finally:
        os.umask(before)
    server.listen(128)
    return server


def inherited() -> _socket.socket | None:
    """Returns the listening socket that a service manager passed (sd_listen_fds(3)), or None.

    Removes the variables: a container's hook must not take a descriptor for its own.
    """
    given = {name: os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if given["LISTEN_PID"] != str(os.getpid()):
        return None
    if given["LISTEN_FDS"] != "1":
        raise Error(f"LISTEN_FDS: one socket is needed, not {given['LISTEN_FDS'] or 'none'}")
    try:
        os.set_inheritable(_FIRST_PASSED, False)
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, _FIRST_PASSED)
        facts = [server.getsockopt(_socket.SOL_SOCKET, name) for name in _SOCKET_FACTS]
    except OSError as error:
        raise Error(f"LISTEN_FDS: descriptor {_FIRST_PASSED} is no socket: {error.strerror}") from None
    if facts != [_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 1]:
        raise Error(f"LISTEN_FDS: descriptor {_FIRST_PASSED} is no listening SOCK_SEQPACKET socket")
    return server


class _World:
    """The namespaces, root and rights of a process.

    The launcher must not do more for a caller than the caller could do itself.
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
        """Returns True if it makes no difference whether the caller or the launcher executes a command."""
        if (caller.places, caller.fences, caller.label) != (self.places, self.fences, self.label):
            return False
        pairs = zip(self.capabilities, caller.capabilities, strict=True)
        return all(own & ~theirs == 0 for own, theirs in pairs)


def _label(pid: int | str) -> bytes:
    """The label of AppArmor or SELinux; empty if neither is in force."""
    try:
        with open(f"/proc/{pid}/attr/current", "rb") as file:
            return file.read()
    except OSError:
        return b""


class Server:
    """The listening socket, and the answers to its clients."""

    def __init__(self, socket: _socket.socket, runs: InlineRuns) -> None:
        self.socket = socket
        self.waiting = Waiting()
        self.runs = runs
        self._world = _World("self")

    def serve(self) -> None:
        """Serves until a signal ends it."""
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
            pid, uid, _ = credentials(peer)
            yield Fd(peer.fileno(), _SECONDS_TO_SPEAK)
            request = receive(peer)
        except (OSError, ValueError) as error:
            log.warn(f"launcher: {error}")
            peer.close()
            return
        if uid != os.geteuid() or not self._same_world(pid):
            answer(peer, NOT_TAKEN)
            request.close()
            peer.close()
            return
        found = self.runs.accept(peer, request)
        yield from work(peer, request, self.socket) if found is None else found.task()

    def _same_world(self, pid: int) -> bool:
        """Returns True if the caller sees the same paths and process ids, and has the launcher's rights."""
        try:
            return self._world.serves(_World(pid))
        except (OSError, KeyError, ValueError):
            return False


def serve(path: str = SOCKET) -> int:
    """Serves until SIGTERM or SIGINT. Workers and containers go on until they end.

    On the socket of a service manager if there is one, which then stays, else on `path`.
    """
    passed = inherited()
    preload()
    runs = InlineRuns()
    runs.starter.native.keep_spawner()
    detect(keep=True)
    server = Server(passed or listen(path), runs)

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    _signal.signal(_signal.SIGTERM, stop)
    _signal.signal(_signal.SIGINT, stop)
    # All objects so far stay, so the collector must not write to them. It collects only newer ones.
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        server.serve()
    except KeyboardInterrupt:
        return 0
    finally:
        server.socket.close()
        if passed is None:
            _remove(path)
    return 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
