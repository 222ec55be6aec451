# SPDX-License-Identifier: Apache-2.0
"""Operations without a form in the native init's program: a launch with one of them is Python's.

What they need is imported before the root is changed (CVE-2019-14271): at the top, or in an operation that
comes before. `exec` changes the root first and imports all of it itself.
"""

from __future__ import annotations

import _socket
import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.channel import Channel
from ringfence_runtime.launch.hooks import Inside, run_hooks
from ringfence_runtime.launch.identity import schedule
from ringfence_runtime.launch.mempolicy import set_policy
from ringfence_runtime.launch.mounts import new_filesystem
from ringfence_runtime.launch.operations.base import Operation
from ringfence_runtime.launch.operations.mounts import propagate
from ringfence_runtime.launch.operations.root import leave_host
from ringfence_runtime.security import landlock
from ringfence_runtime.security.labels import apply_labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec.config import Config, Hook
    from ringfence_runtime.spec.linux import Landlock
    from ringfence_runtime.spec.process import Process

__all__ = [
    "ApplyLabels",
    "AwaitRuntimeHooks",
    "BuildLandlock",
    "MoveRoot",
    "OpenTerminal",
    "RedirectOutput",
    "RestrictByLandlock",
    "RunHooks",
    "RunStartHooks",
    "Schedule",
    "SetAffinity",
    "SetMemoryPolicy",
    "SetPropagationAgain",
]


class OpenTerminal(Operation):
    """Opens a terminal of the container's devpts, sends its master to the caller, and makes it the streams.

    `plain`: it does not insert CR before LF. `binds`: also as /dev/console (not for `exec`).
    """

    size: tuple[int, int] | None
    uid: int
    plain: bool
    binds: bool

    def describe(self) -> str:
        return "open a terminal as the standard streams" + (" and as /dev/console" if self.binds else "")

    def execute(self, world: World) -> None:
        from ringfence_runtime.launch import console

        root = world.root if world.root >= 0 else os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = console.open_pty(root, world.devpts, self.size, plain=self.plain)
        os.fchown(slave, self.uid, -1)
        if self.binds:
            console.bind_console(root, slave)
        console.send_master(Channel(_socket.socket(fileno=world.console)), master)
        os.close(master)
        console.make_stdio(slave)
        if root != world.root:
            os.close(root)


class AwaitRuntimeHooks(Operation):
    """Lets the runtime run the prestart and createRuntime hooks, in its own namespaces."""

    def describe(self) -> str:
        return "wait until the runtime ran the prestart and createRuntime hooks"

    def execute(self, world: World) -> None:
        world.channel.send(say.RUN_HOOKS)
        kind, reason = world.channel.receive()
        if kind != say.DONE:
            raise Error(reason or "the runtime ended while it ran hooks")


class RunHooks(Operation):
    """Runs hooks in the container's namespaces; `directory` is their working directory."""

    kind: str
    hooks: tuple[Hook, ...]
    status: str
    directory: str

    def describe(self) -> str:
        return f"run the {self.kind} hooks"

    def execute(self, world: World) -> None:
        state = world.container.hook_state(self.status, os.getpid())
        run_hooks(self.hooks, state, cwd=self.directory)


class RunStartHooks(Operation):
    """Runs the startContainer hooks, programs of the image, as the workload: with its filter, too."""

    hooks: tuple[Hook, ...]
    seccomp: Filter | None

    def describe(self) -> str:
        return "run the startContainer hooks" + (" under the seccomp filter" if self.seccomp else "")

    def execute(self, world: World) -> None:
        state = world.container.hook_state("created", os.getpid())
        run_hooks(self.hooks, state, inside=Inside(world.env, self.seccomp))


class MoveRoot(Operation):
    """`--no-pivot`: moves the root filesystem over /."""

    def describe(self) -> str:
        return "move the root filesystem over /, without pivot_root"

    def execute(self, world: World) -> None:
        from ringfence_runtime.launch.moveroot import move_root

        os.fchdir(world.root)
        move_root(world.root, world.procfs)
        leave_host(world)


class SetPropagationAgain(Operation):
    """Sets the own propagation of mounts again, because that of the root changed it."""

    def describe(self) -> str:
        return "set the propagation of mounts that ask for their own"

    def execute(self, world: World) -> None:
        for mount, tree in world.apart:
            propagate(mount, tree)
            os.close(tree)


class RedirectOutput(Operation):
    """Makes files of the container's mounts the standard streams, so that the workload may reopen them."""

    path: str

    def describe(self) -> str:
        return f"redirect standard output and error to {self.path}"

    def execute(self, world: World) -> None:
        reading, writing = os.O_RDONLY, os.O_WRONLY | os.O_APPEND
        for path, flags, fds in (("/dev/null", reading, (0,)), (self.path, writing, (1, 2))):
            opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NOCTTY)
            for fd in fds:
                os.dup2(opened, fd)
            if opened not in fds:
                os.close(opened)


class SetAffinity(Operation):
    """`execCPUAffinity.final`."""

    cpus: frozenset[int]

    def describe(self) -> str:
        return f"run on the CPUs {sorted(self.cpus)}"

    def execute(self, world: World) -> None:
        os.sched_setaffinity(0, self.cpus)


class SetMemoryPolicy(Operation):
    """Sets the NUMA nodes of the workload's memory (set_mempolicy(2))."""

    mode: int
    nodes: frozenset[int]

    def describe(self) -> str:
        return f"set the memory policy {self.mode} for the nodes {sorted(self.nodes)}"

    def execute(self, world: World) -> None:
        set_policy(self.mode, self.nodes)


class Schedule(Operation):
    """Sets the scheduler and the io priority."""

    process: Process

    def describe(self) -> str:
        return "set the scheduler and the io priority"

    def execute(self, world: World) -> None:
        schedule(self.process)


class ApplyLabels(Operation):
    """Asks for an AppArmor profile and an SELinux label at execve, through a procfs of the runtime's own.

    `hosts`: whether AppArmor and SELinux are in force, as the runtime found it on the host. A container's
    sysfs may not show either. `opens`: for `exec`, which has no procfs open.
    """

    apparmor: str
    selinux: str
    hosts: tuple[bool, bool]
    opens: bool

    def describe(self) -> str:
        return f"ask for the labels {self.apparmor or '(no AppArmor)'}, {self.selinux or '(no SELinux)'}"

    def execute(self, world: World) -> None:
        procfs = new_filesystem("proc", "proc", (), 0) if self.opens else world.procfs
        apply_labels(procfs, apparmor=self.apparmor, selinux=self.selinux, hosts=self.hosts)
        if self.opens:
            os.close(procfs)


class BuildLandlock(Operation):
    """Builds the Landlock ruleset for the container's tree. `scope`: also isolates signals and sockets."""

    rules: Landlock
    config: Config
    scope: bool

    def describe(self) -> str:
        return "build the Landlock rules"

    def execute(self, world: World) -> None:
        world.ruleset = landlock.build(self.rules, self.config, scope=self.scope)


class RestrictByLandlock(Operation):
    """Puts the ruleset in force, while the process still has the right to do so without no_new_privs."""

    no_new_privs: bool

    def describe(self) -> str:
        return "restrict by Landlock"

    def execute(self, world: World) -> None:
        if world.ruleset < 0:
            return
        if self.no_new_privs:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.landlock_restrict_self(world.ruleset)
        os.close(world.ruleset)
