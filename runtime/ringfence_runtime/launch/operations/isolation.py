# SPDX-License-Identifier: Apache-2.0
"""The first operations: standard streams, cgroups, namespaces and the session keyring."""

from __future__ import annotations

import _socket
import fcntl
import os
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime.cgroup import enter as enter_cgroup
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.keyring import NO_KEYRINGS, USER_SEARCH, join_keyring
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.spec.linux import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering

__all__ = [
    "AwaitRuntime",
    "BecomeNamespaceRoot",
    "EnterCgroups",
    "JoinKeyring",
    "JoinNamespace",
    "LoopbackUp",
    "NewCgroupNamespace",
    "TakeStreams",
]

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
_LOOPBACK_UP = pack("16sH14x", b"lo", _IFF_UP)
_JOIN_SESSION, _SETPERM = 1, 5  # KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_SETPERM of linux/keyctl.h
# The permissions of a new session keyring (security/keys/process_keys.c, join_session_keyring), and the
# one that `join_keyring` adds.
_KEYRING_PERMISSIONS = 0x3F130000 | USER_SEARCH


class TakeStreams(Operation):
    """Makes the descriptors of the caller the standard streams.

    `streams` are their numbers in the runtime. `foreign` are descriptors of other containers that a fork of
    the launcher inherits; the native init does not inherit them.
    """

    streams: tuple[int, ...]
    foreign: tuple[int, ...]

    def describe(self) -> str:
        return "take the standard streams of the caller"

    def execute(self, world: World) -> None:
        for number, fd in enumerate(self.streams):
            os.dup2(fd, number)
        for fd in self.foreign:
            os.close(fd)

    def lower(self, target: Lowering) -> None:
        for number in range(len(self.streams)):
            target.program.call("dup3", target.program.fd(f"stream {number}"), number, 0)


class EnterCgroups(Operation):
    """Enters the cgroups of version 1. The init is a member of its version 2 cgroup from its creation.

    `keys`: of all hierarchies, in order; the empty one is version 2.
    """

    keys: tuple[str, ...]

    def describe(self) -> str:
        return "enter the version 1 cgroups"

    def execute(self, world: World) -> None:
        enter_cgroup(world.tasks)

    def lower(self, target: Lowering) -> None:
        program = target.program
        for index, key in enumerate(self.keys):
            if key:
                file, flags = program.slot(), os.O_WRONLY | os.O_CLOEXEC
                program.call("openat", program.fd(f"cgroup {index}"), b"tasks", flags, 0, into=file)
                program.call("write", file, b"0", 1)


class AwaitRuntime(Operation):
    """Waits until the runtime did its part from outside.

    `needs` names what must happen before the next operation. If it is empty, the native init need not wait.
    """

    needs: str

    def describe(self) -> str:
        return f"wait for the runtime{', which ' if self.needs else ''}{self.needs}"

    def execute(self, world: World) -> None:
        kind, _ = world.channel.receive()
        if kind != say.GO:
            os._exit(1)
        # Without root, only the ids of a dumpable process can be mapped (ptrace(2)), so this is done now.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)

    def lower(self, target: Lowering) -> None:
        if self.needs:
            raise NotLowerableError(self.describe())


class BecomeNamespaceRoot(Operation):
    """Takes the ids of root in the new or joined user namespace."""

    def describe(self) -> str:
        return "become root of the user namespace"

    def execute(self, world: World) -> None:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)


class JoinNamespace(Operation):
    """Joins a namespace by the descriptor that the runtime opened."""

    name: str

    def describe(self) -> str:
        return f"join the {self.name} namespace"

    def execute(self, world: World) -> None:
        try:
            syscalls.setns(world.namespaces[self.name], NAMESPACES[self.name])
        except OSError as error:
            raise Error(f"cannot join the {self.name} namespace: {error.strerror}") from None

    def lower(self, target: Lowering) -> None:
        target.program.call("setns", target.program.fd(f"join {self.name}"), NAMESPACES[self.name])


class NewCgroupNamespace(Operation):
    """Creates the cgroup namespace. Its root is the cgroup of its creator, so the cgroups come first."""

    def describe(self) -> str:
        return "create the cgroup namespace"

    def execute(self, world: World) -> None:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)

    def lower(self, target: Lowering) -> None:
        target.program.call("unshare", syscalls.CLONE_NEWCGROUP)


class LoopbackUp(Operation):
    """Brings `lo` up, which is down in a new network namespace and has no flag that must be kept."""

    def describe(self) -> str:
        return "bring the loopback interface up"

    def execute(self, world: World) -> None:
        sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
        try:
            fcntl.ioctl(sock.fileno(), _SIOCSIFFLAGS, _LOOPBACK_UP)
        finally:
            sock.close()

    def lower(self, target: Lowering) -> None:
        program = target.program
        sock = program.slot()
        program.call("socket", _socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0, into=sock)
        program.call("ioctl", sock, _SIOCSIFFLAGS, program.at(program.data(_LOOPBACK_UP)))
        target.close(sock)


class JoinKeyring(Operation):
    """Enters the session keyring of the container, which its first process creates (keyrings(7)).

    The keys of the runtime's caller are then out of reach.
    """

    name: str  # the container's

    def describe(self) -> str:
        return f"join the session keyring _ses.{self.name}"

    def execute(self, world: World) -> None:
        join_keyring(self.name)

    def lower(self, target: Lowering) -> None:
        """The runtime inserts the name into the data, so that containers can share one program."""
        program = target.program
        serial = program.slot()
        words = (_JOIN_SESSION, program.at(target.keyring))
        place = program.call("keyctl", *words, into=serial, errors=NO_KEYRINGS)
        program.call("keyctl", _SETPERM, serial, _KEYRING_PERMISSIONS, errors=NO_KEYRINGS)
        program.skip(place)
