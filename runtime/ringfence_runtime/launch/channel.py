# SPDX-License-Identifier: Apache-2.0
"""The messages between the runtime and a container's init while it starts: one letter and a text.

| from | kind | text | meaning |
|---|---|---|---|
| init, stage | ERROR | the reason | it failed, and ends |
| init | HOOK_ERROR | the reason | a hook in its namespaces failed, and it ends |
| init | WARNING | the warning | the runtime prints it, and the launch goes on |
| init | RUN_HOOKS | | all mounts are attached: prestart and createRuntime hooks are due |
| init | READY | | everything but the execve is done |
| native init | FALLBACK | | its program does not cover what happened, and it ends; the workload has not run |
| init | LISTENER | | it installs a seccomp filter with a listener: from here on, waits are limited |
| init | LISTENER | its number | fetch the descriptor of a seccomp listener, then answer DONE |
| stage | MAP_IDS, SET_CLOCKS | | do it from outside, then answer DONE |
| stage | PID | the init's | the init was created |
| runtime | GO | | the ids are mapped and the cgroup is joined: go on |
| runtime | DONE | | the request was executed |
| runtime | REFUSED | the reason | the request failed |
| runtime | START | | execute the workload |

The end of the channel (GONE) is the success of an execve, or the death of the other end.

The content of a message from inside is untrusted (the text of an error may contain a name from the image).
Its kind is trusted: until it executes the workload, the sender is the runtime's own code, non-dumpable.
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
    """One end. `send` never blocks for long: messages are small, and the other end reads all of them."""

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
        """A message of another kind, with descriptors: the program of a native init."""
        rights = [(_socket.SOL_SOCKET, _SCM_RIGHTS, pack(f"{len(fds)}i", *fds))] if fds else []
        self.sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[str, str]:
        """(kind, text); the kind is empty if the other end is gone."""
        try:
            data = self.sock.recv(_SIZE)
        except ConnectionResetError:
            data = b""
        return data[:1].decode("ascii", "replace"), data[1:].decode("utf-8", "surrogateescape")

    def receive_fd(self) -> int:
        """The descriptor in a message without other content."""
        data, ancillary, _, _ = self.sock.recvmsg(16, 64, _socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == _socket.SOL_SOCKET and kind == _SCM_RIGHTS:
                return int.from_bytes(payload[:4], "little")
        raise OSError(71, f"no descriptor came with {data!r}")

    def close(self) -> None:
        self.sock.close()


def pair() -> tuple[Channel, Channel]:
    """Both ends of a new channel."""
    left, right = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
    return Channel(left), Channel(right)


def _by_fd(directory: int, name: str) -> str:
    """A short path of a socket: many state directories have more than the 108 bytes of sockaddr_un."""
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
