# SPDX-License-Identifier: Apache-2.0
"""The native init: the executable that `install` made of native/init.c, and the programs that it executes."""

from __future__ import annotations

import fcntl
import os
import stat
from _struct import pack, unpack

from ringfence_linux import syscalls
from ringfence_runtime.launch.channel import Channel, pair
from ringfence_runtime.launch.operations.base import NotLowerableError
from ringfence_runtime.launch.operations.lowering import KEYRING, Lowering

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ringfence_runtime.launch.operations.base import Operation
    from ringfence_runtime.launch.plan import Plan

__all__ = ["Compiled", "NativeInit", "compile_init"]

_NAME = "ringfence-init"
#: the descriptor on which native/init.c finds its channel
_CHANNEL = 3


class Compiled:
    """A message for the native init, without the name of the container's keyring."""

    __slots__ = ("_at", "_message", "names")

    def __init__(self, target: Lowering) -> None:
        self._message = target.program.encode()
        self._at = len(self._message) + target.program.place_of(target.keyring)
        self.names = target.program.fds  # of the descriptors that the message needs

    def message(self, container: str) -> bytes | None:
        """The message for a container, or None if its name is too long."""
        name = f"_ses.{container}".encode() + b"\0"
        if len(name) > KEYRING:
            return None
        return self._message[: self._at] + name + self._message[self._at + len(name) :]


def source_kinds(plan: Plan) -> dict[int, bool]:
    """Whether the source of each bind mount is a directory, by the index of the mount."""
    return {index: stat.S_ISDIR(os.fstat(fd).st_mode) for index, fd in plan.mount_fds.items()}


def compile_init(operations: Iterable[Operation], kinds: dict[int, bool], *, listening: bool) -> Compiled:
    """Lowers all operations. Raises NotLowerableError if one has no form in the program.

    `listening`: the start comes over a socket. `kinds`: see `source_kinds`.
    """
    target = Lowering(listening=listening, kinds=kinds)
    for operation in operations:
        operation.lower(target)
    if not target.program.fits():
        raise NotLowerableError("send a program that is longer than one message")
    return Compiled(target)


class NativeInit:
    """Starts processes of the native init, from a private read-only mount (CVE-2019-5736), with an empty
    environment.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        self._call: syscalls.Exec | None = None
        self._spawner: Channel | None = None
        if path:
            self._open(path)

    def _open(self, path: str) -> None:
        try:
            tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
            syscalls.mount_setattr(tree, attr_set=syscalls.MOUNT_ATTR_RDONLY, propagation=syscalls.MS_PRIVATE)
        except OSError:
            return
        # A high number, because the child makes its channel _CHANNEL.
        self._fd = fcntl.fcntl(tree, fcntl.F_DUPFD_CLOEXEC, 64)
        os.close(tree)
        self._call = syscalls.Exec(self._fd, [_NAME], [])

    def is_installed(self) -> bool:
        """Returns False if `install` did not compile it, or it cannot be opened."""
        return self._call is not None

    def spawn(self, flags: int, channel: int, cgroup: int) -> tuple[int, int]:
        """(pid, pidfd) of a new init, created by the spawner if there is one."""
        if self._spawner is None:
            return self._fork(flags, channel, cgroup, self._call)
        fds = [channel] if cgroup < 0 else [channel, cgroup]
        self._spawner.send_raw(pack("<Q", flags), fds)
        answer = self._spawner.sock.recv(4)
        if len(answer) != 4:
            # The spawner ended, which only an administrator causes.
            self._spawner = None
            return self._fork(flags, channel, cgroup, self._call)
        pid: int = unpack("<i", answer)[0]
        if pid < 0:
            raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
        return pid, syscalls.pidfd_open(pid)

    def keep_spawner(self) -> None:
        """Starts a process of the native init that stays and creates inits: for the launcher."""
        if self._call is None:
            return
        ours, theirs = pair()
        _, pidfd = self._fork(0, theirs.fileno(), -1, syscalls.Exec(self._fd, [_NAME, "spawner"], []))
        os.close(pidfd)
        theirs.close()
        self._spawner = ours

    @staticmethod
    def _fork(flags: int, channel: int, cgroup: int, call: syscalls.Exec | None) -> tuple[int, int]:
        assert call is not None
        pid, pidfd = syscalls.clone3(flags, cgroup_fd=cgroup)
        if pid == 0:
            # Do as little as possible here: each page that is written to is copied.
            if channel == _CHANNEL:
                os.set_inheritable(channel, True)
            else:
                os.dup2(channel, _CHANNEL)
            call()
            os._exit(127)
        return pid, pidfd
