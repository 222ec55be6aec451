# SPDX-License-Identifier: Apache-2.0
"""The conversation between the runtime and a container's init while it starts: short messages, a letter of a
kind and a text.

| from | kind | text | means |
|---|---|---|---|
| init, stage | ERROR | why | it failed, and ends |
| init | HOOK_ERROR | why | a hook of its side failed, and it ends |
| init | WARNING | what | told, and it goes on |
| init | RUN_HOOKS | | the root is furnished: prestart and createRuntime hooks are due |
| init | READY | | all is done but the execve |
| small init | FALLBACK | | it has no step for what it met, and ends; nothing of the workload has run |
| init | LISTENER | its number | fetch the descriptor of a seccomp listener, then answer DONE |
| stage | MAP_IDS, SET_CLOCKS | | do it from outside, then answer DONE |
| stage | PID | the init's | it is born |
| runtime | GO | | ids are mapped, the cgroup is joined: go on |
| runtime | DONE | | what was asked for is done |
| runtime | REFUSED | why | it is not, and never will be |
| runtime | START | | execute the workload |

The end of the channel (GONE) is the success of an execve, or the death of the other end.

Everything from the inside is untrusted in content (a workload's file names may be in an error text), never
in kind: the sender is still our own code, non-dumpable, until it executes the workload.
"""

from __future__ import annotations

import _socket
import os
from _struct import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Channel", "pair"]

ERROR, HOOK_ERROR, WARNING, RUN_HOOKS, READY, LISTENER, FALLBACK = "E", "X", "W", "H", "R", "F", "B"
MAP_IDS, SET_CLOCKS, PID = "U", "T", "P"
GO, DONE, REFUSED, START = "G", "K", "N", "S"
GONE = ""

_SIZE = 65536
_SCM_RIGHTS = 1


class Channel:
    """One end. `send` never blocks for long: messages are small and the other end reads them all."""

    __slots__ = ("sock",)

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, kind: str, text: str = "", fds: Sequence[int] = ()) -> None:
        data = kind.encode() + text.encode("utf-8", "surrogateescape")[: _SIZE - 1]
        if fds:
            rights = pack(f"{len(fds)}i", *fds)
            self.sock.sendmsg([data], [(_socket.SOL_SOCKET, _SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL)
        else:
            self.sock.send(data, _socket.MSG_NOSIGNAL)

    def send_raw(self, data: bytes, fds: Sequence[int]) -> None:
        """A message of another kind, with descriptors: the steps of a small init."""
        rights = [(_socket.SOL_SOCKET, _SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
        self.sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[str, str]:
        """(kind, text); kind is empty when the other end is gone."""
        try:
            data = self.sock.recv(_SIZE)
        except ConnectionResetError:
            data = b""
        return data[:1].decode("ascii", "replace"), data[1:].decode("utf-8", "surrogateescape")

    def receive_fd(self) -> int:
        """A message whose only content is a descriptor."""
        data, ancillary, _, _ = self.sock.recvmsg(16, 64, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == _socket.SOL_SOCKET and kind == _SCM_RIGHTS:
                return int.from_bytes(payload[:4], "little")
        raise OSError(71, f"no descriptor came with {data!r}")

    def close(self) -> None:
        self.sock.close()


def pair() -> tuple[Channel, Channel]:
    """Two ends."""
    left, right = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    return Channel(left), Channel(right)


def _by_fd(directory: int, name: str) -> str:
    """A short path of a socket: the 108 bytes of sockaddr_un are too few for many a state directory."""
    return f"/proc/self/fd/{directory}/{name}"


def listen(path: str) -> Channel:
    """A listening socket in a directory that only root may enter."""
    directory, _, name = path.rpartition("/")
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        sock.bind(_by_fd(fd, name))
        os.chmod(name, 0o600, dir_fd=fd)
        sock.listen(1)
        return Channel(sock)
    finally:
        os.close(fd)


def accept(channel: Channel) -> Channel:
    """The next connection."""
    fd, _ = channel.sock._accept()  # type: ignore[attr-defined]
    return Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd))


def connect(path: str, *, stream: bool = False) -> Channel:
    """Connect to a unix socket at a path of any length."""
    directory, _, name = path.rpartition("/")
    fd = os.open(directory or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM if stream else _socket.SOCK_SEQPACKET)
        sock.connect(_by_fd(fd, name))
        return Channel(sock)
    finally:
        os.close(fd)
