# SPDX-License-Identifier: Apache-2.0
"""The little of rtnetlink(7) that the runtime needs: a request, its answers, and why one is refused."""

from __future__ import annotations

import _socket
import os
from _struct import Struct

__all__ = ["Netlink", "attribute", "attributes"]

_REQUEST, _ACK = 1, 4
_ERROR, _DONE = 2, 3
_HEADER = Struct("IHHII")  # length, kind, flags, sequence, port
_ATTRIBUTE = Struct("HH")  # length, kind
_SOL_NETLINK, _EXT_ACK = 270, 11
_CAPPED, _HAS_ATTRIBUTES = 0x100, 0x200  # flags of an error message
_MESSAGE = 1  # NLMSGERR_ATTR_MSG
_BUFFER = 1 << 16


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Payloads by kind."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & 0x3FFF] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


class Netlink:
    """A socket of the network namespace in which it was made."""

    def __init__(self) -> None:
        self._sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW | _socket.SOCK_CLOEXEC, 0)
        self._sequence = 0
        try:
            self._sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        except OSError:
            pass  # an error is only a number then

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def ask(self, kind: int, body: bytes, flags: int = 0) -> list[tuple[int, bytes]]:
        """(kind, body) of each message of the answer. Raises OSError with the kernel's own words."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0)
        self._sock.send(header + body)
        found: list[tuple[int, bytes]] = []
        while True:
            data = self._sock.recv(_BUFFER)
            while data:
                length, what, more, sequence, _ = _HEADER.unpack_from(data)
                body, data = data[_HEADER.size : length], data[length + 3 & ~3 :]
                if sequence != self._sequence:
                    continue
                if what == _ERROR:
                    _check(body, more)
                    return found
                if what == _DONE:
                    return found
                found.append((what, body))


def _check(body: bytes, flags: int) -> None:
    """An error message with the number 0 is the acknowledgement."""
    code = -int.from_bytes(body[:4], "little", signed=True)
    if not code:
        return
    said = b""
    if flags & _HAS_ATTRIBUTES:
        request = _HEADER.size if flags & _CAPPED else int.from_bytes(body[4:8], "little")
        said = attributes(body[4 + (request + 3 & ~3) :]).get(_MESSAGE, b"")
    text = said.rstrip(b"\0").decode("ascii", "replace")
    raise OSError(code, f"{os.strerror(code)} ({text})" if text else os.strerror(code))
