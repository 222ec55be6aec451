# SPDX-License-Identifier: Apache-2.0
"""The last operations: the program is found, the init waits for `start`, seccomp, execve."""

from __future__ import annotations

import os
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.identity import candidates, find_executable, latest
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.launch.signals import reset_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.channel import Channel
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec.process import Process

__all__ = ["AwaitStart", "CloseDescriptors", "Execute", "FindProgram"]


class FindProgram(Operation):
    """Finds the program of the workload in the image and prepares the execve."""

    process: Process

    def describe(self) -> str:
        return f"find {' '.join(self.process.args[:1])}"

    def execute(self, world: World) -> None:
        args = self.process.args
        if not args:
            raise Error("config: process.args: is required and must not be empty")
        path = find_executable(args[0], world.env)
        world.call = syscalls.Exec(path, args, world.env)

    def lower(self, target: Lowering) -> None:
        program, process = target.program, self.process
        if not process.args:
            raise NotLowerableError("report that process.args is empty")
        target.arguments = program.vector([os.fsencode(word) for word in process.args])
        paths = [os.fsencode(path) for path in candidates(process.args[0], latest(process).values())]
        program.add("find", b"\0".join([*paths, b""]))


class CloseDescriptors(Operation):
    """Lets execve close every descriptor but the standard streams (CVE-2024-21626)."""

    def describe(self) -> str:
        return "close all other descriptors at execve"

    def execute(self, world: World) -> None:
        syscalls.close_range(3, cloexec=True)

    def lower(self, target: Lowering) -> None:
        target.program.call("close_range", 3, 0xFFFFFFFF, 4)


class AwaitStart(Operation):
    """Reports that the container is ready and waits for the start.

    `run` starts it over the same channel, `start` over the listening socket.
    """

    def describe(self) -> str:
        return "wait for the start"

    def execute(self, world: World) -> None:
        world.channel.send(say.READY)
        if world.listener is None:
            kind, _ = world.channel.receive()
            if kind != say.START:
                os._exit(1)
            return
        world.channel.close()
        world.channel = _accept_start(world.listener)

    def lower(self, target: Lowering) -> None:
        program = target.program
        program.add("ready", *([program.fd("listener")] if target.listening else [0]))


def _accept_start(listener: Channel) -> Channel:
    while True:
        peer = say.accept(listener)
        kind, _ = peer.receive()
        if kind == say.START:
            return peer
        peer.close()


class Execute(Operation):
    """Installs the seccomp filter and executes the workload, with nothing between.

    The other end of the channel sees success as the end of the channel. `handed`: descriptors of the caller
    that the workload inherits.
    """

    name: str
    seccomp: Filter | None
    handed: tuple[int, ...]

    def describe(self) -> str:
        return f"{'install the seccomp filter and ' if self.seccomp else ''}execute {self.name}"

    def execute(self, world: World) -> None:
        assert world.call is not None
        peer = world.channel
        reset_signals()
        for number in self.handed:
            os.set_inheritable(number, True)
        announcement = b""
        fd = -1
        if self.seccomp is not None:
            if self.seccomp.listener:
                peer.send(say.LISTENER)
            try:
                fd = syscalls.seccomp_filter(self.seccomp.program, self.seccomp.flags)
            except OSError as error:
                peer.send(say.ERROR, f"config: linux.seccomp: {error.strerror}")
                os._exit(1)
            if self.seccomp.listener:
                announcement = b"%s%d" % (say.LISTENER.encode(), fd)
                os.write(peer.fileno(), announcement)
                # execve closes the listener, so wait until the other end has it. `seccomp.CALLS_OF_INIT`
                # names these two calls. Without an agent nothing is executed.
                if not os.read(peer.fileno(), 1):
                    os._exit(1)
        code = world.call()
        peer.send(say.ERROR, f'exec: "{self.name}": {os.strerror(code).lower()}')
        os._exit(127 if code == 2 else 126)

    def lower(self, target: Lowering) -> None:
        program, seccomp = target.program, self.seccomp
        if self.handed or (seccomp is not None and seccomp.listener):
            raise NotLowerableError("pass descriptors to the workload, or a seccomp listener to an agent")
        if seccomp is not None:
            code = program.data(seccomp.program)
            filter_ = program.pointing(pack("<HxxxxxxQ", len(seccomp.program) // 8, code), 8)
            program.call("seccomp", 1, seccomp.flags, program.at(filter_))
        name = os.fsencode(self.name)
        program.add("execute", program.at(target.arguments), program.at(target.env), name)
