# SPDX-License-Identifier: Apache-2.0
"""A second process in a running container: its namespaces, cgroup, root and fences, then execve.

A first child enters all namespaces by one setns on the init's pidfd; its own child (our sibling, by
CLONE_PARENT) is the one that the pid namespace shows, so nothing of the first is visible inside.
"""

from __future__ import annotations

import _socket
import os

from ringfence_runtime import _sys
from ringfence_runtime.cgroup import enter as enter_cgroup
from ringfence_runtime.cgroup.hierarchy import own_paths, write
from ringfence_runtime.errors import Error, StateError
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.channel import Channel
from ringfence_runtime.launch.child import enter, execute
from ringfence_runtime.launch.identity import (
    end_imports,
    environment,
    find_executable,
    free_cpus,
    schedule,
    set_rlimits,
)
from ringfence_runtime.launch.keyring import join_keyring
from ringfence_runtime.launch.mempolicy import parse_policy, set_policy
from ringfence_runtime.launch.mounts import new_filesystem
from ringfence_runtime.launch.outside import set_oom_score
from ringfence_runtime.launch.parent import await_exec
from ringfence_runtime.launch.relay import forward_signals, prepare_console
from ringfence_runtime.launch.waiting import complete
from ringfence_runtime.security import landlock
from ringfence_runtime.security.labels import apparmor_enabled, apply_labels, selinux_enabled
from ringfence_runtime.spec.linux import NAMESPACES
from ringfence_runtime.state import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.plan import Options
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec import Config
    from ringfence_runtime.spec.process import Process
    from ringfence_runtime.state import Container

__all__ = ["Joined"]


class _on_cpus:
    """For a moment on these CPUs, so that what is forked has never been on others before it is in the
    container's cgroup (execCPUAffinity.initial).
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
    """One exec, from the outside."""

    __slots__ = (
        "config",
        "console",
        "container",
        "filter",
        "foreground",
        "hosts",
        "landlock",
        "memory_policy",
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
        self.hosts = (False, False)
        self.landlock = landlock.wanted(config)
        policy = config.linux.memory_policy
        self.memory_policy = parse_policy(policy) if policy else None

    def start(self) -> tuple[int, int]:
        """(pid, pidfd) of the new process, which is executing when this returns."""
        if self.config.linux.seccomp is not None:
            from ringfence_runtime.security.seccomp import prepare

            self.filter = prepare(self.config.linux.seccomp)
        self._prepare_console()
        if self.process.apparmor or self.process.selinux:
            # Asked here: a container's sysfs need not show either, and never has selinuxfs.
            self.hosts = (apparmor_enabled(), selinux_enabled())
        init = self.container.open_init()
        try:
            tasks = self._cgroups()
            ours, theirs = say.pair()
            with _on_cpus(self.process.affinity_initial):
                stage, stage_fd = _sys.clone3(0)
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
        # Imported in any case: inside, the import would run the image's file of this name.
        from ringfence_runtime.launch.console import connect_console

        if self.options.console_socket:
            self.console = connect_console(self.options.console_socket).sock.detach()
        else:
            self.console = prepare_console()

    def _follow(self, channel: Channel, stage: int, stage_fd: int) -> tuple[int, int]:
        """Put the stage in the cgroup, which its child inherits; do from outside what the child may not."""
        try:
            self._join_cgroup(stage)
            channel.send(say.GO)
            kind, text = channel.receive()
            if kind != say.PID:
                raise Error(text or "the process died while it joined the container")
        except BaseException:
            channel.close()  # what the stage takes for the end
            raise
        finally:
            os.waitpid(stage, 0)
            os.close(stage_fd)
        pid = int(text)
        pidfd = _sys.pidfd_open(pid)
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
                write_file(self.options.pid_file, str(pid))
            if self.foreground:
                forward_signals(pidfd)
            channel.send(say.START)
            complete(await_exec(channel, self.container, pidfd, self.filter, pid))
        except BaseException:
            _sys.pidfd_send_signal(pidfd, 9)
            os.waitpid(pid, 0)
            raise
        return pid, pidfd

    def _cgroups(self) -> list[int]:
        """The version 1 cgroups that the stage enters by itself."""
        group = self.container.cgroup
        if self.sub_cgroup and not any(
            os.path.isdir(f"{path}/{self.sub_cgroup}") for path in group.dirs.values()
        ):
            raise Error(f"--cgroup: the container has no cgroup {self.sub_cgroup}")
        return group.open_tasks(self.sub_cgroup)

    def _join_cgroup(self, pid: int) -> None:
        """The version 2 cgroup as made; or where the init has moved to, when that one has children of its
        own.
        """
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
            inner = own_paths(self.container.pid).get("", "")
            root = group.unified[: -len(group.path)]
            write(f"{root}{inner}/cgroup.procs", str(pid))

    def _flags(self) -> int:
        """The namespaces in which the container differs from us: setns refuses some that are already ours.

        Only the kernel's word for each counts. What cannot be asked is an error and never "ours": the init
        may end at any moment, and its names are gone then. And its mount namespace is joined in any case, by
        its pidfd, so that nothing goes on where it has ended.
        """
        flags = _sys.CLONE_NEWNS
        for name, flag in NAMESPACES.items():
            if name not in self.config.linux.namespaces or name == "mount":
                continue
            file = "net" if name == "network" else name
            theirs = os.stat(f"/proc/{self.container.pid}/ns/{file}")
            if theirs.st_ino != os.stat(f"/proc/self/ns/{file}").st_ino:
                flags |= flag
        return flags

    def _enter_namespaces(self, init: int) -> int:
        """Enter those of `_flags`, which are returned."""
        try:
            flags = self._flags()
            _sys.setns(init, flags)
        except (FileNotFoundError, ProcessLookupError):
            raise StateError(f"container not running: {self.container.id}") from None
        end_imports()
        return flags

    def _stage(self, init: int, channel: Channel, tasks: list[int]) -> None:
        try:
            _sys.prctl(_sys.PR_SET_DUMPABLE, 0)
            enter_cgroup(tasks)
            if channel.receive()[0] != say.GO:
                os._exit(1)
            if not (self.process.affinity_initial or self.process.affinity_final):
                free_cpus(0)
            if self._enter_namespaces(init) & _sys.CLONE_NEWUSER:
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            pid, _ = _sys.clone3(_sys.CLONE_PARENT)
            if pid:
                channel.send(say.PID, str(pid))
                os._exit(0)
            self._inside(channel)
        except (Error, OSError) as error:
            channel.send(say.ERROR, str(error))
        except BaseException as error:
            channel.send(say.ERROR, f"internal error: {type(error).__name__}: {error}")
        finally:
            os._exit(1)

    def _inside(self, channel: Channel) -> None:
        process = self.process
        os.setsid()
        if channel.receive()[0] != say.GO:
            os._exit(1)
        if not self.container.keep_keyring:
            join_keyring(self.container.id)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if process.terminal:
            self._terminal(root)
        env = environment(process, root)
        os.close(root)
        os.umask(0o022 if process.user.umask is None else process.user.umask)
        if process.affinity_final:
            os.sched_setaffinity(0, process.affinity_final)
        if self.config.linux.personality is not None:
            _sys.personality(self.config.linux.personality)
        if self.memory_policy is not None:
            set_policy(*self.memory_policy)
        schedule(process)
        if process.apparmor or process.selinux:
            self._labels()
        enter(
            process,
            has_userns="user" in self.config.linux.namespaces,
            seccomp=self.filter is not None,
            notify=channel,
            ruleset=-1 if self.landlock is None else landlock.build(self.landlock, self.config, scope=False),
        )
        call = _sys.Exec(find_executable(process.args[0], env), process.args, env)
        _sys.close_range(3, cloexec=True)
        channel.send(say.READY)
        if channel.receive()[0] != say.START:
            os._exit(1)
        execute(call, self.filter, channel, self.options.handed, process.args[0])

    def _terminal(self, root: int) -> None:
        from ringfence_runtime.launch import console

        master, slave = console.open_pty(root, -1, self.process.console_size)
        os.fchown(slave, self.process.user.uid, -1)
        console.send_master(Channel(_socket.socket(fileno=self.console)), master)
        os.close(master)
        console.make_stdio(slave)

    def _labels(self) -> None:
        procfs = new_filesystem("proc", "proc", (), 0)
        apply_labels(procfs, apparmor=self.process.apparmor, selinux=self.process.selinux, hosts=self.hosts)
        os.close(procfs)
