# SPDX-License-Identifier: Apache-2.0
"""`linux.netDevices`: move interfaces of the host into the container's network namespace, by rtnetlink."""

from __future__ import annotations

import _socket
import os
from _struct import pack, unpack_from

from ringfence_runtime.errors import Error

__all__ = ["move_devices"]

_NEWLINK, _REQUEST_ACK, _IFNAME, _NET_NS_FD = 16, 5, 3, 28


def _attribute(kind: int, payload: bytes) -> bytes:
    return pack("HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def move_devices(pid: int, devices: dict[str, str]) -> None:
    """Move each; its addresses stay, as the specification wants, only where the kernel keeps them."""
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    sock = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, 0)
    try:
        for name, new in devices.items():
            try:
                index = _socket.if_nametoindex(name)
            except OSError:
                raise Error(f"config: linux.netDevices.{name}: there is no such interface") from None
            body = pack("BxHiII", 0, 0, index, 0, 0) + _attribute(_NET_NS_FD, pack("i", namespace))
            body += _attribute(_IFNAME, new.encode() + b"\0")
            sock.send(pack("IHHII", 16 + len(body), _NEWLINK, _REQUEST_ACK, index, 0) + body)
            code = -unpack_from("i", sock.recv(4096), 16)[0]
            if code:
                raise Error(f"config: linux.netDevices.{name}: {os.strerror(code)}")
    finally:
        sock.close()
        os.close(namespace)
