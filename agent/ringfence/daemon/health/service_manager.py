# SPDX-License-Identifier: Apache-2.0
"""Reports to systemd (sd_notify(3)): the agent is ready, its loop turns, it stops.

Without NOTIFY_SOCKET in the environment nothing is sent. A report that cannot be sent is dropped:
systemd's own time limits handle an agent that does not report.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

__all__ = ["ServiceManager"]


class ServiceManager:
    """Used by the agent's main thread only."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        """The agent answers /readyz with 200."""
        self._send(b"READY=1\nSTATUS=ready")

    def waiting(self, what: str) -> None:
        """The agent is not ready before `what` is done."""
        self._send(f"STATUS=waiting for {what}".encode())

    def alive(self) -> None:
        """The loop turns. systemd restarts an agent that does not report this within WatchdogSec."""
        self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """The agent ends by itself or by a signal."""
        self._send(b"STOPPING=1\nSTATUS=stopping")

    def _send(self, message: bytes) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message, self._address)
