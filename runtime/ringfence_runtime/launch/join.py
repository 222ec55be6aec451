# SPDX-License-Identifier: Apache-2.0
"""A second process in a running container: its namespaces, cgroup, root and restrictions, then execve.

A first child (the stage) enters all namespaces by one setns on the init's pidfd. Its own child is the one
that the pid namespace shows. It is a sibling of the stage (CLONE_PARENT), so the stage is not visible inside.
The child executes operations, as an init does (`operations/`).
"""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_linux.atomicfile import replace_file
from ringfence_linux.cgroups import paths_of
from ringfence_runtime.cgroup import enter as enter_cgroup
from ringfence_runtime.cgroup.hierarchy import write
from ringfence_runtime.errors import Error, StateError
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.channel import Channel
from ringfence_runtime.launch.identity import end_imports, free_cpus, set_rlimits
from ringfence_runtime.launch.operations.base import World
from ringfence_runtime.launch.operations.isolation import AwaitRuntime, JoinKeyring
from ringfence_runtime.launch.operations.python_only import OpenTerminal
from ringfence_runtime.launch.operations.sequence import become_workload
from ringfence_runtime.launch.operations.start import AwaitStart, Execute
from ringfence_runtime.launch.outside import set_oom_score
from ringfence_runtime.launch.parent import await_exec
from ringfence_runtime.launch.relay import forward_signals, prepare_console
from ringfence_runtime.launch.waiting import complete
from ringfence_runtime.spec.linux import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import Operation
    from ringfence_runtime.launch.plan import Options
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec import Config
    from ringfence_runtime.spec.process import Process
    from ringfence_runtime.state import Container

__all__ = ["Joined"]


class _on_cpus:
    """A while on these CPUs, so that a forked process never ran on others before it is in the container's
    cgroup (execCPUAffinity.initial).
    """

    def __init__(self, cpus: frozenset[int] | None) -> None:
        self.cpus = cpus
        self.before: set[int] = set()

    def __enter__(self) -> None:
        if self.cpus:
            self.before = os.sched_getaffinity(0)
            try:
                os.sched_setaffinity(0, self.cpus)
            except OSError as error:
                raise Error(f"config: process.execCPUAffinity.initial: {error.strerror}") from None

    def __exit__(self, *_: object) -> None:
        if self.before:
            os.sched_setaffinity(0, self.before)


class Joined:
    """One `exec`, from the outside."""

    __slots__ = (
        "config",
        "console",
        "container",
        "filter",
        "foreground",
        "operations",
        "options",
        "process",
        "sub_cgroup",
    )

    def __init__(
        self, container: Container, config: Config, process: Process, options: Options, sub_cgroup: str
    ) -> None:
        self.container = container
        self.config = config
        self.process = process
        self.options = options
        self.sub_cgroup = sub_cgroup
        self.console = -1
        self.foreground = False
        self.filter: Filter | None = None
        self.operations: list[Operation] = []

    def start(self) -> tuple[int, int]:
        """(pid, pidfd) of the new process, which is executing when this returns."""
        if self.config.linux.seccomp is not None:
            from ringfence_runtime.security.seccomp import prepare

            self.filter = prepare(self.config.linux.seccomp)
        self._prepare_console()
        # Before the namespaces are entered: this imports modules and asks the host for its LSMs.
        self.operations = self._operations()
        init = self.container.open_init()
        try:
            tasks = self._cgroups()
            ours, theirs = say.pair()
            with _on_cpus(self.process.affinity_initial):
                stage, stage_fd = syscalls.clone3(0)
                if stage == 0:
                    ours.close()
                    self._stage(init, theirs, tasks)
            for fd in tasks:
                os.close(fd)
            theirs.close()
            return self._follow(ours, stage, stage_fd)
        finally:
            os.close(init)

    def _prepare_console(self) -> None:
        if not self.process.terminal:
            return
        # Always imported here: inside, the import would execute the image's file of this name.
        from ringfence_runtime.launch.console import connect_console

        if self.options.console_socket:
            self.console = connect_console(self.options.console_socket).sock.detach()
        else:
            self.console = prepare_console(self.options)

    def _follow(self, channel: Channel, stage: int, stage_fd: int) -> tuple[int, int]:
        """Moves the stage into the cgroup, which its child inherits, and does what the child may not."""
        try:
            self._join_cgroup(stage)
            channel.send(say.GO)
            kind, text = channel.receive()
            if kind != say.PID:
                raise Error(text or "the process died while it joined the container")
        except BaseException:
            channel.close()  # the stage then ends
            raise
        finally:
            os.waitpid(stage, 0)
            os.close(stage_fd)
        pid = int(text)
        pidfd = syscalls.pidfd_open(pid)
        try:
            if self.process.oom_score_adj is not None:
                set_oom_score(pid, self.process.oom_score_adj)
            channel.send(say.GO)
            while (message := channel.receive())[0] != say.READY:
                if message[0] != say.WARNING:
                    raise Error(message[1] or "the process died while it was being set up")
            set_rlimits(pid, self.process.rlimits)
            if self.options.pidfd_socket:
                from ringfence_runtime.launch.console import send_pidfd

                send_pidfd(self.options.pidfd_socket, pidfd, "setns")
            if self.options.pid_file:
                replace_file(self.options.pid_file, str(pid))
            if self.foreground:
                forward_signals(pidfd)
            channel.send(say.START)
            complete(await_exec(channel, self.container, pidfd, self.filter, pid))
        except BaseException:
            syscalls.pidfd_send_signal(pidfd, 9)
            os.waitpid(pid, 0)
            raise
        return pid, pidfd

    def _cgroups(self) -> list[int]:
        """The version 1 cgroups, which the stage enters itself."""
        group = self.container.cgroup
        if self.sub_cgroup and not any(
            os.path.isdir(f"{path}/{self.sub_cgroup}") for path in group.dirs.values()
        ):
            raise Error(f"--cgroup: the container has no cgroup {self.sub_cgroup}")
        return group.open_tasks(self.sub_cgroup)

    def _join_cgroup(self, pid: int) -> None:
        """Moves the process into the version 2 cgroup, or into the init's if that cgroup has children."""
        group = self.container.cgroup
        if group.unified is None:
            return
        target = f"{group.unified}/{self.sub_cgroup}" if self.sub_cgroup else group.unified
        if self.sub_cgroup and not group.is_v2 and not os.path.isdir(target):
            target = group.unified
        try:
            write(f"{target}/cgroup.procs", str(pid))
        except OSError as error:
            if self.sub_cgroup:
                raise Error(f"cannot join the cgroup {target}: {error.strerror}") from None
            inner = paths_of(self.container.pid).get("", "")
            if inner != group.path and not inner.startswith(f"{group.path}/"):
                raise Error(f"the init has left the container's cgroup {group.path}") from None
            root = group.unified[: -len(group.path)]
            write(f"{root}{inner}/cgroup.procs", str(pid))

    def _flags(self) -> int:
        """The namespaces in which the container differs from the runtime: setns refuses some equal ones.

        Only the kernel's answer counts for each. A failed query is an error and never means "equal": the init
        may end at any moment, and its files in /proc are gone then. Its mount namespace is always joined, by
        its pidfd, so that nothing is run after the init ended.
        """
        flags = syscalls.CLONE_NEWNS
        for name, flag in NAMESPACES.items():
            if name not in self.config.linux.namespaces or name == "mount":
                continue
            file = "net" if name == "network" else name
            theirs = os.stat(f"/proc/{self.container.pid}/ns/{file}")
            if theirs.st_ino != os.stat(f"/proc/self/ns/{file}").st_ino:
                flags |= flag
        return flags

    def _enter_namespaces(self, init: int) -> int:
        """Enters the namespaces of `_flags` and returns the flags."""
        try:
            flags = self._flags()
            syscalls.setns(init, flags)
        except (FileNotFoundError, ProcessLookupError):
            raise StateError(f"container not running: {self.container.id}") from None
        end_imports()
        return flags

    def _stage(self, init: int, channel: Channel, tasks: list[int]) -> None:
        world = World(self.container, channel)
        world.console = self.console
        try:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
            enter_cgroup(tasks)
            if channel.receive()[0] != say.GO:
                os._exit(1)
            if not (self.process.affinity_initial or self.process.affinity_final):
                free_cpus(0)
            if self._enter_namespaces(init) & syscalls.CLONE_NEWUSER:
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            pid, _ = syscalls.clone3(syscalls.CLONE_PARENT)
            if pid:
                channel.send(say.PID, str(pid))
                os._exit(0)
            os.setsid()
            for operation in self.operations:
                operation.execute(world)
        except (Error, OSError) as error:
            channel.send(say.ERROR, str(error))
        except BaseException as error:
            channel.send(say.ERROR, f"internal error: {type(error).__name__}: {error}")
        finally:
            os._exit(1)

    def _operations(self) -> list[Operation]:
        """What the new process does inside, in order; the root is already the container's."""
        process, config = self.process, self.config
        operations: list[Operation] = [AwaitRuntime("")]
        if not self.container.keep_keyring:
            operations.append(JoinKeyring(self.container.id))
        if process.terminal:
            size, uid, plain = process.console_size, process.user.uid, self.options.plain_terminal
            operations.append(OpenTerminal(size, uid, plain, False))
        operations += become_workload(config, process, self.options, self.filter, joins=True)
        operations.append(AwaitStart())
        operations.append(Execute(process.args[0], self.filter, tuple(self.options.handed)))
        return operations
