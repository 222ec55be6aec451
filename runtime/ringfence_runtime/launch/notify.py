# SPDX-License-Identifier: Apache-2.0
"""SCMP_ACT_NOTIFY: passes the filter's listener to the agent that the profile names (config-linux.md,
seccomp).
"""

from __future__ import annotations

import _socket
import os
import select
from _struct import pack

from ringfence_linux import strictjson, syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.channel import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.channel import Channel
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.state import Container

__all__ = ["await_agent", "hand_over"]

_SECONDS = 10.0  # the limit for an agent to accept the message, and for calls up to the execve
_SCM_RIGHTS = 1


def hand_over(container: Container, pid: int, pidfd: int, number: int, seccomp: Filter) -> None:
    """Fetches descriptor `number` of the process and sends it with the process's state.

    `pid` is the container's init, or a process that `exec` added to a running container.
    """
    listener = syscalls.pidfd_getfd(pidfd, number)
    try:
        state = {
            "ociVersion": container.version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": seccomp.metadata,
            "state": {
                "ociVersion": container.version,
                "id": container.id,
                "status": "creating" if pid == container.pid else "running",
                "pid": container.pid,
                "bundle": container.bundle,
                "annotations": container.annotations,
            },
        }
        try:
            _send(seccomp.listener, strictjson.dumps(state).encode("ascii"), listener)
        except OSError as error:
            why = error.strerror or "it does not answer"
            raise Error(f"config: linux.seccomp.listenerPath: {seccomp.listener}: {why}") from None
    finally:
        os.close(listener)


def await_agent(channel: Channel, pidfd: int, seccomp: Filter) -> None:
    """Waits for the process's next message, or for its execve. Kills it if that takes too long.

    It is under the filter: what it waits for may be an agent that does not answer.
    """
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    if not poll.poll(_SECONDS * 1000):
        syscalls.pidfd_send_signal(pidfd, 9)
        raise Error(
            f"config: linux.seccomp: no execve within {_SECONDS:.0f} s: a call waits for the agent at"
            f" {seccomp.listener}",
            hint="the agent must answer the calls up to the execve, or the profile must allow them",
        )


def _send(path: str, data: bytes, fd: int) -> None:
    """Sends all of the data. The descriptor is sent with the first byte."""
    channel = connect(path, stream=True)
    try:
        channel.sock.settimeout(_SECONDS)
        rights = [(_socket.SOL_SOCKET, _SCM_RIGHTS, pack("i", fd))]
        sent = channel.sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL)
        if sent < len(data):  # an agent that has everything may have closed its end
            channel.sock.sendall(data[sent:], _socket.MSG_NOSIGNAL)
    finally:
        channel.close()
