# SPDX-License-Identifier: Apache-2.0
"""Which agent enrols a sandbox, and whether there is one."""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from ringfence_linux import enroll

__all__ = ["NO_AGENT", "agent_listens", "follow_commands"]

NO_AGENT = "no agent runs here: the sandbox has only its own restrictions, and no alerts"


def follow_commands(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the runtime ask the agent of RINGFENCE_SOCKET, as `status` does, if no other one is named."""
    path = environment.get("RINGFENCE_SOCKET")
    if path:
        environment.setdefault(enroll.VARIABLE, os.path.join(os.path.dirname(path), enroll.SOCKET_NAME))


def agent_listens() -> bool:
    """Returns True if an agent accepts enrolments."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(os.environ.get(enroll.VARIABLE, enroll.SOCKET))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            pass  # it is there: the runtime reports what is wrong with it
    return True
