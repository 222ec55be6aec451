# SPDX-License-Identifier: Apache-2.0
"""The outside of a launch: state, cgroup, the init's process, hooks of the runtime's namespace, and start.

A launch is a generator that yields what it waits for (`waiting`). The commands run it to its end; the warm
launcher runs many at the same time. If anything fails, everything that the launch made is undone in reverse.
If the runtime itself is killed, the state `creating` and the name of the cgroup remain on disk, and `delete
--force` finds them.
"""

from __future__ import annotations

import os

from ringfence_linux.atomicfile import replace_file
from ringfence_linux.procfs import live_start
from ringfence_runtime import log
from ringfence_runtime.cgroup.group import Cgroup
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch import wasm
from ringfence_runtime.launch.agent import announce
from ringfence_runtime.launch.channel import Channel
from ringfence_runtime.launch.ending import Undo, destroy, end, kill_child, run_poststart
from ringfence_runtime.launch.hooks import HookError, run_hooks
from ringfence_runtime.launch.identity import set_rlimits
from ringfence_runtime.launch.outside import from_outside
from ringfence_runtime.launch.plan import USERNS, Options, Plan, make_plan
from ringfence_runtime.launch.starting import Start, Starter
from ringfence_runtime.launch.waiting import complete
from ringfence_runtime.spec import load_config, parse_config
from ringfence_runtime.state import Container, Store, check_id, write_new

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.waiting import Task
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.spec import Config

__all__ = ["Launched", "await_exec", "create", "creating", "destroy", "start_created"]


class _FallbackError(Exception):
    """The native init asks for a launch by Python."""


class Launched:
    """A container, the init of which waits to be started."""

    __slots__ = ("channel", "config", "container", "filter", "pid", "pidfd", "terminal")

    def __init__(
        self,
        container: Container,
        config: Config,
        pid: int,
        pidfd: int,
        channel: Channel,
        seccomp: Filter | None,
        terminal: Channel | None,
    ) -> None:
        self.container = container
        self.config = config
        self.pid = pid
        self.pidfd = pidfd
        self.channel = channel
        self.filter = seccomp
        self.terminal = terminal  # see relay.prepare_console

    def start(self) -> None:
        """Starts it, and runs the poststart hooks when the workload is executing."""
        complete(self.starting())

    def starting(self) -> Task[None]:
        """`start` as a generator."""
        self.channel.send(say.START)
        yield from await_exec(self.channel, self.container, self.pidfd, self.filter)
        run_poststart(self.container, self.config)

    def exit_code(self) -> int:
        """The exit code after the end, 128 + N for signal N. Its process id stays in use until `reap`."""
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOWAIT)
        assert result is not None
        return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status

    def reap(self) -> None:
        """Releases its process id and descriptors after its end."""
        self.channel.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        os.close(self.pidfd)

    def discard(self) -> None:
        """After a start that failed: ends it, and removes what exists of it."""
        kill_child(self.pid)
        destroy(self.container, self.config)


def await_exec(
    channel: Channel, container: Container, pidfd: int, seccomp: Filter | None, pid: int = 0
) -> Task[None]:
    """Waits for the end of the channel, which execve closes. Raises the error if execve failed.

    `pid`: of a process that is not the container's init.
    """
    limited = False
    while True:
        if limited and seccomp is not None:
            from ringfence_runtime.launch.notify import await_agent

            await_agent(channel, pidfd, seccomp)
        else:
            yield channel
        kind, text = channel.receive()
        if kind == say.GONE:
            return
        if kind == say.ERROR:
            raise Error(text)
        if kind == say.HOOK_ERROR:
            raise HookError(text)
        if kind == say.WARNING:
            log.warn(text)
        elif kind == say.LISTENER and seccomp is not None:
            limited = True
            if text:
                from ringfence_runtime.launch.notify import hand_over

                hand_over(container, pid or container.pid, pidfd, int(text), seccomp)
                channel.send(say.DONE)


def start_created(container: Container) -> None:
    """`start`: speaks to the init that waits on its socket."""
    config = container.config()
    pidfd = container.open_init()
    try:
        try:
            channel = say.connect(container.socket)
        except OSError:
            raise Error(f"container {container.id} is already started") from None
        channel.send(say.START)
        seccomp = None
        if config.linux.seccomp is not None and config.linux.seccomp.text("listenerPath"):
            seccomp = _filter_of(config)
        complete(await_exec(channel, container, pidfd, seccomp))
        os.unlink(container.socket)
        run_poststart(container, config)
    except HookError:
        end(container)
        destroy(container)
        raise
    finally:
        os.close(pidfd)


def cgroup_path(config: Config, name: str) -> str:
    """The cgroup of the configuration, or one with the name of the container."""
    return config.linux.cgroups_path or f"/{name}"


def _group(config: Config, name: str, options: Options) -> Cgroup:
    """Without root there is no cgroup, unless the configuration names one that was delegated to the user."""
    if not options.cgroups or (os.geteuid() != 0 and not config.linux.cgroups_path):
        return Cgroup.none()
    return Cgroup.at(cgroup_path(config, name), options.hierarchies)


def create(
    store: Store,
    name: str,
    bundle: str,
    options: Options,
    *,
    detached_start: bool,
    detach: bool = False,
    config_path: str = "",
) -> Launched:
    """Creates everything but the workload's execve. `detached_start`: another process will start it."""
    steps = creating(
        store,
        name,
        bundle,
        options,
        detached_start=detached_start,
        detach=detach,
        config_path=config_path,
    )
    return complete(steps)


def creating(
    store: Store,
    name: str,
    bundle: str,
    options: Options,
    *,
    detached_start: bool,
    detach: bool = False,
    config_path: str = "",
    loaded: tuple[Config, bytes] | None = None,
) -> Task[Launched]:
    """`create` as a generator. `loaded`: the configuration if the caller has read and prepared it."""
    check_id(name)
    config, data = loaded or load_config(config_path or f"{bundle}/config.json")
    _check_process(config, options, detached=detached_start or detach)
    group = _group(config, name, options)
    undo = Undo(name)
    try:
        if options.userns or USERNS in config.annotations:
            config, data = _own_ids(config, data, options, f"{store.root}/{name}", undo)
        config = config if loaded else wasm.rewrite(config, bundle, options)
        seccomp = _filter_of(config)
        plan = make_plan(config, bundle, options)
        undo.add(plan.close)
        container = store.create(
            name,
            bundle=bundle,
            rootfs=plan.rootfs,
            version=config.version,
            annotations=config.annotations,
            cgroup=group,
            userns=-1 if options.userns_range is None else options.userns_range.index,
            keep_keyring=options.keep_keyring,
        )
        undo.made(container, config)
        write_new(f"{container.directory}/config.json", data)
        undo.add(group.undo, by_name=True)
        group.create()
        group.apply(config.linux.resources)
        if group.is_v2 and config.linux.new("cgroup"):
            from ringfence_runtime.cgroup.delegation import delegate

            delegate(group, config)
        talk = announce(config, options, container)
        launched = yield from _launch_either(plan, container, seccomp, undo, listening=detached_start)
        if talk is not None:
            yield from talk.confirm()
        _tell(options, launched, wait=detached_start)
        return launched
    except BaseException:
        undo.run()
        raise


def _tell(options: Options, launched: Launched, *, wait: bool) -> None:
    """Passes the process to the caller. `wait`: from here on it can be started."""
    if wait:
        os.rename(launched.container.unready, launched.container.socket)
    if options.pidfd_socket:
        from ringfence_runtime.launch.console import send_pidfd

        send_pidfd(options.pidfd_socket, launched.pidfd, "standard")
    if options.pid_file:
        replace_file(options.pid_file, str(launched.pid))


def _filter_of(config: Config) -> Filter | None:
    """The compiled seccomp profile, if there is one."""
    if config.linux.seccomp is None:
        return None
    from ringfence_runtime.security.seccomp import prepare

    return prepare(config.linux.seccomp)


def _own_ids(
    config: Config, data: bytes, options: Options, directory: str, undo: Undo
) -> tuple[Config, bytes]:
    """For `userns: auto`, takes a range of ids for the container and adds it to the configuration."""
    from ringfence_runtime.launch import autouserns

    if not autouserns.wanted(config, options.userns):
        return config, data
    ids = options.userns_range or autouserns.take(directory)
    options.userns_range = ids
    undo.add_first(lambda: autouserns.release(ids.index, directory))
    rewritten = autouserns.rewrite(data, ids)
    return parse_config(rewritten), rewritten


def _check_process(config: Config, options: Options, *, detached: bool) -> None:
    if config.process is None:
        raise SpecError("process", "is required: a container without one could never be started")
    if config.process.terminal and detached and not options.console_socket:
        raise Error("config: process.terminal: a detached container with a terminal needs --console-socket")
    if options.console_socket and not config.process.terminal:
        raise Error("--console-socket is only for a process with a terminal")
    config.process.warn()


def _prepare_console(plan: Plan) -> None:
    """Connects the terminal: to the engine's socket, or to this process."""
    if plan.options.console_socket and plan.console < 0:
        from ringfence_runtime.launch.console import connect_console

        plan.console = connect_console(plan.options.console_socket).sock.detach()
    elif plan.config.process is not None and plan.config.process.terminal:
        from ringfence_runtime.launch.relay import prepare_terminal

        prepare_terminal(plan)


def _launch_either(
    plan: Plan, container: Container, seccomp: Filter | None, undo: Undo, *, listening: bool
) -> Task[Launched]:
    """Launches with the native init. If that falls back, nothing has run, and Python launches again."""
    depth = undo.depth()
    starter = plan.options.starter or Starter()
    try:
        return (yield from _launch(starter, plan, container, seccomp, undo, listening=listening))
    except _FallbackError:
        if not starter.may_fall_back:
            raise Error("the native init fell back to Python, which this installation forbids") from None
        log.debug("the native init fell back: Python executes the operations")
    undo.back_to(depth)
    if listening:
        os.unlink(container.unready)
    again = make_plan(plan.config, plan.bundle, plan.options)
    undo.add(again.close)
    return (yield from _launch(starter, again, container, seccomp, undo, listening=listening, native=False))


def _launch(
    starter: Starter,
    plan: Plan,
    container: Container,
    seccomp: Filter | None,
    undo: Undo,
    *,
    listening: bool,
    native: bool = True,
) -> Task[Launched]:
    _prepare_console(plan)
    ours, theirs = say.pair()
    listener = say.listen(container.unready) if listening else None
    start = Start(starter, plan, container, seccomp, (theirs, listener), native=native)
    pid, pidfd = start.begin(ours)
    undo.add(lambda: _end(pid, pidfd))
    if plan.options.spawned is not None:
        plan.options.spawned(pid)
    theirs.close()
    if listener is not None:
        listener.close()
    container.pid, container.start = pid, live_start(pid)
    container.save()
    from_outside(plan, container.cgroup, pid)
    plan.close()
    if start.compiled is None:
        ours.send(say.GO)
    yield from _converse(ours, plan, container, pid)
    if plan.config.process is not None:
        set_rlimits(pid, plan.config.process.rlimits)
    return Launched(container, plan.config, pid, pidfd, ours, seccomp, plan.options.terminal)


def _converse(channel: Channel, plan: Plan, container: Container, pid: int) -> Task[None]:
    """Answers the init until it is ready."""
    hooks = plan.config.hooks
    while True:
        yield channel
        kind, text = channel.receive()
        if kind == say.READY:
            return
        if kind == say.WARNING:
            log.warn(text)
        elif kind == say.RUN_HOOKS:
            state = container.hook_state("creating", pid)
            try:
                run_hooks([*hooks["prestart"], *hooks["createRuntime"]], state, cwd=container.bundle)
            except Error as error:
                channel.send(say.REFUSED, str(error))
                raise
            channel.send(say.DONE)
        elif kind == say.HOOK_ERROR:
            raise HookError(text)
        elif kind == say.ERROR:
            raise Error(text)
        elif kind == say.FALLBACK:
            raise _FallbackError
        else:
            raise Error(
                "the container's init died while it was being set up", hint="was it killed for memory?"
            )


def _end(pid: int, pidfd: int) -> None:
    kill_child(pid)
    os.close(pidfd)
