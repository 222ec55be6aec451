# SPDX-License-Identifier: Apache-2.0
"""The warm launcher: a process with everything loaded, which forks a worker for each command it is handed.

One thread, one socket, no event library. It takes foreground `run` and `exec` of its own user, from processes
in its own namespaces, and nothing else: an engine must be the ancestor of the containers that it detaches, so
those commands are never handed over. A worker runs the same code as the cold command; its start is cheaper.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os
import sys
from _struct import pack, unpack

from ringfence_runtime import log
from ringfence_runtime.errors import Error

__all__ = ["SOCKET", "decode", "serve"]

SOCKET = "/run/ringfence/launcher.sock"
MOST_BYTES = 1 << 18
_SO_PEERCRED = 17
_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts", "cgroup")


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


def decode(data: bytes) -> tuple[str, int, list[str], dict[str, str]]:
    """(directory, umask, arguments, environment) of a message; ValueError for anything else."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    if len(words) < 4 or words.pop() != "":
        raise ValueError("not a message of ours")
    directory, mask, count, *rest = words
    arguments, variables = rest[: int(count)], rest[int(count) :]
    if not directory.startswith("/") or len(arguments) != int(count) or not 0 <= int(mask, 8) <= 0o777:
        raise ValueError("not a message of ours")
    return directory, int(mask, 8), arguments, dict(item.split("=", 1) for item in variables if "=" in item)


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


def _same_world(pid: int) -> bool:
    """Whether the caller lives in our namespaces: paths and pids mean the same then."""
    try:
        return all(
            os.stat(f"/proc/{pid}/ns/{name}").st_ino == os.stat(f"/proc/self/ns/{name}").st_ino
            for name in _NAMESPACES
        )
    except OSError:
        return False


def _receive(peer: _socket.socket) -> tuple[bytes, list[int]]:
    data, ancillary, _, _ = peer.recvmsg(MOST_BYTES, 64, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, 1):
            fds += unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    return data, fds


def _work(peer: _socket.socket, message: tuple[str, int, list[str], dict[str, str]], fds: list[int]) -> None:
    """In the worker: become the caller as far as that matters, run the command, tell its code."""
    from ringfence_runtime.cli import main

    code = 1
    try:
        os.setsid()
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        directory, mask, arguments, variables = message
        os.chdir(directory)
        os.umask(mask)
        os.environ.clear()
        os.environ.update(variables)
        code = main(arguments)
        sys.stdout.flush()
    except OSError as error:
        log.error(str(error))
    finally:
        try:
            peer.send(pack("i", code), _socket.MSG_NOSIGNAL)
        except OSError:
            pass
        os._exit(code)


def _serve_one(server: _socket.socket) -> None:
    fd, _ = server._accept()  # type: ignore[attr-defined]
    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
    fds: list[int] = []
    try:
        # A caller that connects and says nothing must not hold up the others.
        peer.settimeout(1)
        pid, uid, _ = unpack("3i", peer.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, 12))
        data, fds = _receive(peer)
        if uid != os.geteuid() or len(fds) != 3 or not _same_world(pid):
            peer.send(pack("i", 0))
            return
        message = decode(data)
        peer.settimeout(None)
        worker = os.fork()
        if worker == 0:
            server.close()
            for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD):
                _signal.signal(number, _signal.SIG_DFL)
            peer.send(pack("i", os.getpid()), _socket.MSG_NOSIGNAL)
            _work(peer, message, fds)
    except (OSError, ValueError) as error:
        log.warn(f"launcher: {error}")
    finally:
        for each in fds:
            os.close(each)
        peer.close()


def serve(path: str = SOCKET) -> int:
    """Serve until SIGTERM or SIGINT; running workers end by themselves."""
    preload()
    server = listen(path)

    def stop(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    _signal.signal(_signal.SIGTERM, stop)
    _signal.signal(_signal.SIGINT, stop)
    # The kernel reaps the workers: nobody asks for their status, their code goes to the caller.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    try:
        while True:
            _serve_one(server)
    except KeyboardInterrupt:
        return 0
    finally:
        server.close()
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
