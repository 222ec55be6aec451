# SPDX-License-Identifier: Apache-2.0
"""The peer of a Unix socket."""

from __future__ import annotations

import _socket
import os
import socket

from ringfence_linux.peercred import is_trusted, peer


def test_the_peer_is_this_process() -> None:
    """Sockets of both modules."""
    own = (os.getpid(), os.getuid(), os.getgid())
    left, right = socket.socketpair()
    with left, right:
        assert peer(left) == own
        raw = _socket.socket(fileno=os.dup(left.fileno()))
        assert peer(raw) == own
        raw.close()


def test_root_and_the_own_user_are_trusted() -> None:
    """Nobody else."""
    assert is_trusted(0)
    assert is_trusted(os.geteuid())
    assert not is_trusted(os.geteuid() + 1)
