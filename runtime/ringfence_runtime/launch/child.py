# SPDX-License-Identifier: Apache-2.0
"""The container's init until it executes the workload: it builds its own world, then waits to be started.

Nothing here returns: it ends in execve or in _exit after telling the other end why. It runs with the
runtime's memory, so it is non-dumpable from its first step to its last.
"""

from __future__ import annotations

import _socket
import fcntl
import os
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime.cgroup import enter as enter_cgroup
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.channel import Channel
from ringfence_runtime.launch.hooks import HookError, run_hooks
from ringfence_runtime.launch.identity import (
    become,
    change_directory,
    end_imports,
    environment,
    find_executable,
    own_stdio,
    schedule,
)
from ringfence_runtime.launch.keyring import join_keyring
from ringfence_runtime.launch.mempolicy import parse_policy, set_policy
from ringfence_runtime.launch.plan import Plan
from ringfence_runtime.launch.rootfs import Rootfs
from ringfence_runtime.launch.signals import reset_signals
from ringfence_runtime.launch.stages import join
from ringfence_runtime.security import landlock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec.process import Process
    from ringfence_runtime.state import Container

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h

__all__ = ["Init", "enter", "execute"]


class Init:
    """The steps of the init, in order. `run` is what clone3's child calls."""

    __slots__ = (
        "channel",
        "container",
        "filter",
        "hosts",
        "landlock",
        "listener",
        "memory_policy",
        "plan",
        "rootfs",
        "tasks",
    )

    def __init__(
        self,
        plan: Plan,
        container: Container,
        channel: Channel,
        listener: Channel | None,
        seccomp: Filter | None,
        tasks: list[int],
    ) -> None:
        self.plan = plan
        self.container = container
        self.tasks = tasks
        self.channel = channel
        self.listener = listener
        self.filter = seccomp
        self.rootfs = Rootfs(plan, container.cgroup)
        self.hosts = (False, False)
        # Whatever is needed later is imported now: after pivot_root an import would read the image's files.
        linux = plan.config.linux
        self.landlock = landlock.wanted(plan.config) if linux.landlock or plan.config.annotations else None
        self.memory_policy = parse_policy(linux.memory_policy) if linux.memory_policy else None

    def run(self) -> None:
        try:
            self._take_streams()
            self._settle()
            self._furnish()
            self._hooks()
            self.rootfs.seal()
            self.rootfs.pivot()
            self._identity()
        except HookError as error:
            self.channel.send(say.HOOK_ERROR, str(error))
        except (Error, OSError) as error:
            self.channel.send(say.ERROR, str(error))
        except BaseException as error:
            self.channel.send(say.ERROR, f"internal error: {type(error).__name__}: {error}")
        finally:
            os._exit(1)

    def _take_streams(self) -> None:
        options = self.plan.options
        for number, fd in enumerate(options.streams or ()):
            os.dup2(fd, number)
        for fd in options.foreign:
            os.close(fd)

    def _settle(self) -> None:
        """Wait until the parent has put us in our cgroup and mapped our ids; then take our namespaces."""
        linux = self.plan.config.linux
        os.setsid()
        if not self.plan.rootless:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        enter_cgroup(self.tasks)
        kind, _ = self.channel.receive()
        if kind != say.GO:
            os._exit(1)
        # Of a user who is not root only a dumpable process can have its ids mapped (ptrace(2)).
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if "user" in linux.namespaces:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if not self.plan.staged:
            join(self.plan.namespaces)
        if linux.new("cgroup"):
            # Only now: a cgroup namespace's root is the cgroup that its maker is in.
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        if linux.new("network"):
            _loopback_up()
        if not self.container.keep_keyring:
            join_keyring(self.container.id)

    def _furnish(self) -> None:
        config = self.plan.config
        os.umask(0)
        if config.process and (config.process.apparmor or config.process.selinux):
            from ringfence_runtime.security.labels import apparmor_enabled, selinux_enabled

            self.hosts = (apparmor_enabled(), selinux_enabled())
        self.rootfs.enter()
        self.rootfs.furnish()
        if config.hostname:
            _socket.sethostname(config.hostname)
        if config.domainname:
            syscalls.setdomainname(config.domainname)
        self.rootfs.write_sysctls()
        if config.process is not None and config.process.terminal:
            self._terminal(config.process)

    def _terminal(self, process: Process) -> None:
        from ringfence_runtime.launch import console

        master, slave = console.open_pty(self.rootfs.fd, self.rootfs.devpts, process.console_size)
        os.fchown(slave, process.user.uid, -1)
        console.bind_console(self.rootfs.fd, slave)
        console.send_master(Channel(_socket.socket(fileno=self.plan.console)), master)
        os.close(master)
        console.make_stdio(slave)

    def _hooks(self) -> None:
        """The parent runs prestart and createRuntime; createContainer runs here, before the root is
        changed.
        """
        hooks = self.plan.config.hooks
        if hooks["prestart"] or hooks["createRuntime"]:
            self.channel.send(say.RUN_HOOKS)
            kind, text = self.channel.receive()
            if kind != say.DONE:
                raise Error(text or "the runtime ended while it ran hooks")
        if hooks["createContainer"]:
            os.umask(0o022)
            run_hooks(
                hooks["createContainer"],
                self.container.hook_state("creating", os.getpid()),
                cwd=self.plan.bundle,
            )

    def _identity(self) -> None:
        end_imports()
        config = self.plan.config
        process = config.process
        if process is None or not process.args:
            raise Error("config: process.args: is required and must not be empty")
        if self.plan.options.output:
            _redirect(self.plan.options.output)
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        env = environment(process, root)
        if self.plan.options.listen_fds:
            # What runs inside is process 1 of its own pid namespace, or whatever we are.
            env += [f"LISTEN_FDS={self.plan.options.listen_fds}", f"LISTEN_PID={os.getpid()}"]
        os.close(root)
        os.umask(0o022 if process.user.umask is None else process.user.umask)
        if config.linux.personality is not None:
            syscalls.personality(config.linux.personality)
        if self.memory_policy is not None:
            set_policy(*self.memory_policy)
        schedule(process)
        if process.apparmor or process.selinux:
            from ringfence_runtime.security.labels import apply_labels

            apply_labels(
                self.rootfs.procfs, apparmor=process.apparmor, selinux=process.selinux, hosts=self.hosts
            )
        os.close(self.rootfs.procfs)
        os.close(self.rootfs.fd)
        ruleset = -1 if self.landlock is None else landlock.build(self.landlock, config)
        enter(
            process,
            has_userns="user" in config.linux.namespaces,
            seccomp=self.filter is not None,
            notify=self.channel,
            ruleset=ruleset,
        )
        path = find_executable(process.args[0], env)
        call = syscalls.Exec(path, process.args, env)
        self._finish(process, call)

    def _finish(self, process: Process, call: syscalls.Exec) -> None:
        syscalls.close_range(3, cloexec=True)
        peer = self._wait_for_start()
        hooks = self.plan.config.hooks["startContainer"]
        if hooks:
            run_hooks(hooks, self.container.hook_state("created", os.getpid()))
        execute(call, self.filter, peer, self.plan.options.handed, process.args[0])

    def _wait_for_start(self) -> Channel:
        """Tell that all is ready; then `run` starts us over the same channel, `start` over the listening
        socket.
        """
        self.channel.send(say.READY)
        if self.listener is None:
            kind, _ = self.channel.receive()
            if kind != say.START:
                os._exit(1)
            return self.channel
        self.channel.close()
        while True:
            peer = say.accept(self.listener)
            kind, _ = peer.receive()
            if kind == say.START:
                self.channel = peer
                return peer
            peer.close()


def enter(process: Process, *, has_userns: bool, seccomp: bool, notify: Channel, ruleset: int = -1) -> None:
    """Working directory, Landlock, user and capabilities. Some directories only the new user may enter."""
    entered = True
    try:
        change_directory(process.cwd)
    except Error:
        entered = False
    if ruleset >= 0:
        if process.no_new_privs:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.landlock_restrict_self(ruleset)
        os.close(ruleset)
    own_stdio(process)
    missing = become(process, has_userns=has_userns, seccomp=seccomp)
    if missing:
        notify.send(
            say.WARNING, f"capabilities that this host cannot grant are left out: {', '.join(missing)}"
        )
    if not entered:
        change_directory(process.cwd)
    if process.no_new_privs:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    # Changing the user made us dumpable again or not, by fs.suid_dumpable; the workload's execve settles it.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)


def execute(call: syscalls.Exec, seccomp: Filter | None, peer: Channel, handed: list[int], name: str) -> None:
    """Seccomp and execve, with nothing between. The peer sees success as the end of its channel."""
    reset_signals()
    for number in handed:
        os.set_inheritable(number, True)
    announcement = b""
    fd = -1
    if seccomp is not None:
        try:
            fd = syscalls.seccomp_filter(seccomp.program, seccomp.flags)
        except OSError as error:
            peer.send(say.ERROR, f"config: linux.seccomp: {error.strerror}")
            os._exit(1)
        if seccomp.listener:
            announcement = b"%s%d" % (say.LISTENER.encode(), fd)
            os.write(peer.fileno(), announcement)
            # execve closes the listener, so wait until the other end has it: the profile must allow read
            # and write.
            os.read(peer.fileno(), 1)
    code = call()
    peer.send(say.ERROR, f'exec: "{name}": {os.strerror(code).lower()}')
    os._exit(127 if code == 2 else 126)


def _redirect(output: str) -> None:
    """Files of the container's own mounts as standard descriptors, so that the workload may open them
    again.
    """
    for path, flags, fds in (("/dev/null", os.O_RDONLY, (0,)), (output, os.O_WRONLY | os.O_APPEND, (1, 2))):
        opened = os.open(path, flags | os.O_NOFOLLOW | os.O_NOCTTY)
        for fd in fds:
            os.dup2(opened, fd)
        if opened not in fds:
            os.close(opened)


def _loopback_up() -> None:
    """A new network namespace has `lo`, but down."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    try:
        request = pack("16sh14x", b"lo", 0)
        flags = int.from_bytes(fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, request)[16:18], "little")
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, pack("16sH14x", b"lo", flags | IFF_UP))
    finally:
        sock.close()
