# SPDX-License-Identifier: Apache-2.0
"""The messages between the thin client (native/launcher.c) and the launcher, over SOCK_SEQPACKET.

The client sends one message with its three standard descriptors: NUL-terminated words, namely
directory, umask (octal), number of arguments, the arguments, the environment. The answers are pairs of
32-bit integers: `NOT_TAKEN` (the client executes the command itself), or any number of `RUNNING` with
the process that receives signals, then `ENDED` with the exit code.
"""

from __future__ import annotations

import _socket
import os
from _struct import pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["ENDED", "NOT_TAKEN", "RUNNING", "SOCKET", "Request", "answer", "decode", "receive"]

SOCKET = "/run/ringfence/launcher.sock"
NOT_TAKEN, RUNNING, ENDED = 0, 1, 2
MOST_BYTES = 1 << 18
_SCM_RIGHTS = 1


class Request:
    """A command of a client: its directory, arguments and standard descriptors, which the launcher must
    close.
    """

    __slots__ = ("arguments", "directory", "fds", "umask", "variables")

    def __init__(self, directory: str, umask: int, arguments: list[str], variables: list[str]) -> None:
        self.directory = directory
        self.umask = umask
        self.arguments = arguments
        self.variables = variables
        self.fds: list[int] = []

    def environment(self) -> dict[str, str]:
        """The variables by name."""
        return dict(item.split("=", 1) for item in self.variables if "=" in item)

    def close(self) -> None:
        """Closes its descriptors. They may be closed already."""
        while self.fds:
            os.close(self.fds.pop())


def _refuse() -> NoReturn:
    raise ValueError("not a message of the client")


def decode(data: bytes) -> Request:
    """The request in a message, without descriptors. Raises ValueError for anything else."""
    words = os.fsdecode(data).split("\0")
    if len(words) < 4 or words.pop() != "":
        _refuse()
    directory, mask, number, *rest = words
    count = int(number)
    arguments, variables = rest[:count], rest[count:]
    if not directory.startswith("/") or len(arguments) != count or not 0 <= int(mask, 8) <= 0o777:
        _refuse()
    return Request(directory, int(mask, 8), arguments, variables)


def receive(peer: _socket.socket) -> Request:
    """Reads a request. If it raises ValueError or OSError, no descriptor of the request stays open."""
    data, ancillary, _, _ = peer.recvmsg(MOST_BYTES, 64, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _SCM_RIGHTS):
            fds += unpack(f"{len(payload) // 4}i", payload[: len(payload) // 4 * 4])
    try:
        request = decode(data)
        if len(fds) != 3:
            _refuse()
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise
    request.fds = fds
    return request


def answer(peer: _socket.socket, what: int, value: int = 0) -> None:
    """Sends one answer. A client that has gone is ignored."""
    try:
        peer.send(pack("2i", what, value), _socket.MSG_NOSIGNAL)
    except OSError:
        pass
