# SPDX-License-Identifier: Apache-2.0
"""SCMP_ACT_NOTIFY: hand the filter's listener to the agent that the profile names (config-linux.md,
seccomp).
"""

from __future__ import annotations

import os

from ringfence_runtime import _sys, jsonio
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.channel import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.state import Container

__all__ = ["hand_over"]


def hand_over(container: Container, pidfd: int, number: int, seccomp: Filter) -> None:
    """Fetch descriptor `number` of the container's process and send it with the process's state."""
    listener = _sys.pidfd_getfd(pidfd, number)
    try:
        state = {
            "ociVersion": container.version,
            "fds": ["seccompFd"],
            "pid": container.pid,
            "metadata": seccomp.metadata,
            "state": {
                "ociVersion": container.version,
                "id": container.id,
                "status": "creating",
                "pid": container.pid,
                "bundle": container.bundle,
                "annotations": container.annotations,
            },
        }
        try:
            peer = connect(seccomp.listener, stream=True)
            peer.send("{", jsonio.dumps(state)[1:], [listener])
            peer.close()
        except OSError as error:
            raise Error(f"config: linux.seccomp.listenerPath: {seccomp.listener}: {error.strerror}") from None
    finally:
        os.close(listener)
