# SPDX-License-Identifier: Apache-2.0
"""The process at the other end of a Unix socket, as the kernel recorded it (SO_PEERCRED, unix(7))."""

from __future__ import annotations

import _socket
import os
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

__all__ = ["is_trusted", "peer"]

_UCRED = Struct("3i")
_SO_PEERCRED = 17


def peer(connection: socket.socket | _socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the peer. Raises OSError."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(_socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def is_trusted(uid: int) -> bool:
    """Returns True for root and for the user of this process."""
    return uid in (0, os.geteuid())
