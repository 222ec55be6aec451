# SPDX-License-Identifier: Apache-2.0
"""The parts of netlink for removal and nftables: attributes, requests, batches. No pyroute2, no ctypes.

linux/netlink.h, linux/rtnetlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

__all__ = ["Attributes", "Message", "attribute", "delete_link", "nested", "send_batch"]

NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
RTM_DELLINK = 17
NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLA_F_NESTED = 1 << 15
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFNL_SUBSYS_NFTABLES = 10
_SO_SNDBUFFORCE = 32
_SECONDS = struct.pack("ll", 10, 0)

Attributes = list[tuple[int, bytes]]
Message = tuple[int, int, bytes]
"""type, flags, body"""


def attribute(kind: int, value: bytes) -> bytes:
    """Returns one padded attribute."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(*parts: tuple[int, bytes]) -> bytes:
    """Returns concatenated attributes, for the content of another."""
    return b"".join(attribute(kind, value) for kind, value in parts)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _answer(sock: socket.socket, last: int) -> int:
    """Returns the first error (an errno) up to the answer to message `last`; 0: none."""
    first = 0
    while True:
        data = sock.recv(1 << 16)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data, offset)
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", data, offset + 16)[0]
                first = first or code
                if sequence == last:
                    return int(first)
            offset += (length + 3) & ~3


def send_batch(messages: list[Message]) -> None:
    """Sends messages to nftables as one transaction: all take effect, or none. Raises OSError."""
    head = struct.pack("=BB", 0, 0) + struct.pack(">H", NFNL_SUBSYS_NFTABLES)
    data = _message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 1, head)
    for number, (kind, flags, body) in enumerate(messages, 2):
        flags |= NLM_F_REQUEST | (NLM_F_ACK if number == len(messages) + 1 else 0)
        data += _message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, number, body)
    data += _message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, len(messages) + 2, head)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, max(1 << 18, 2 * len(data)))
        sock.bind((0, 0))
        sock.sendto(data, (0, 0))
        code = _answer(sock, len(messages) + 1)
    if code:
        raise OSError(code, os.strerror(code))


def delete_link(name: str) -> bool:
    """Removes a link of this network namespace. Returns False if there is none."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return False
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SECONDS)
        sock.sendto(_message(RTM_DELLINK, NLM_F_REQUEST | NLM_F_ACK, 1, body), (0, 0))
        code = _answer(sock, 1)
    if code not in (0, errno.ENODEV):
        raise OSError(code, os.strerror(code), name)
    return code == 0
