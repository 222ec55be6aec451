# SPDX-License-Identifier: Apache-2.0
"""The process of a container's init: which interpreter executes the operations, and how it is started.

The native init executes them if `install` compiled it and every operation can be lowered, otherwise a fork
of the runtime. Both get the same namespaces, cgroup and channel.
"""

from __future__ import annotations

import os

import ringfence_runtime
from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.native import Compiled, NativeInit, compile_init, source_kinds
from ringfence_runtime.launch.operations.base import NotLowerableError, World

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.channel import Channel
    from ringfence_runtime.launch.operations.base import Operation
    from ringfence_runtime.launch.plan import Plan
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.state import Container

__all__ = ["Start", "Starter"]

_MOST_COMPILED = 32
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Starter:
    """The native init, and the programs that were compiled for it. A launcher keeps one for its life."""

    def __init__(self) -> None:
        self.native = NativeInit(ringfence_runtime.INIT)
        #: False: every launch is the native init's, or an error. Only `install --no-fallback` sets it.
        self.may_fall_back = ringfence_runtime.FALLBACK
        # (configuration, what else the program depends on) -> the program, or None if it is Python's
        self._compiled: dict[tuple[object, ...], Compiled | None] = {}

    def compiled(self, start: Start) -> Compiled | None:
        """The program for a launch, or None if Python must execute the operations."""
        if not self.native.is_installed():
            return None
        kinds = source_kinds(start.plan)
        key = _key(start, kinds)
        if key not in self._compiled:
            if len(self._compiled) >= _MOST_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
            self._compiled[key] = self._compile(start, kinds)
        return self._compiled[key]

    def _compile(self, start: Start, kinds: dict[int, bool]) -> Compiled | None:
        try:
            return compile_init(start.operations(), kinds, listening=start.listener is not None)
        except NotLowerableError as error:
            if not self.may_fall_back:
                raise Error(f"the native init cannot {error}") from None
            log.debug(f"Python executes the operations: the native init cannot {error}")
            return None


def _key(start: Start, kinds: dict[int, bool]) -> tuple[object, ...]:
    """Everything that an operation or its lowered form depends on, except the container's name."""
    plan, options = start.plan, start.plan.options
    return (
        plan.config,
        plan.rootfs,
        plan.bundle,
        tuple(start.container.cgroup.dirs),
        tuple(plan.namespaces),
        tuple(kinds.items()),
        start.listener is not None,
        options.streams is not None,
        options.keep_keyring,
        options.no_pivot,
        options.output,
        options.listen_fds,
        tuple(options.handed),
        options.rootfs_fd >= 0,
    )


class Start:
    """One start of an init. `native`: False after the native init fell back to Python."""

    __slots__ = ("_operations", "channel", "compiled", "container", "listener", "plan", "seccomp", "starter")

    def __init__(
        self,
        starter: Starter,
        plan: Plan,
        container: Container,
        seccomp: Filter | None,
        channels: tuple[Channel, Channel | None],
        *,
        native: bool,
    ) -> None:
        self.starter = starter
        self.plan = plan
        self.container = container
        self.seccomp = seccomp
        self.channel, self.listener = channels
        self._operations: list[Operation] | None = None
        self.compiled = starter.compiled(self) if native else None

    def operations(self) -> list[Operation]:
        """The operations of this launch, in order."""
        if self._operations is None:
            self._operations = self.plan.operations(self.container, self.seccomp)
        return self._operations

    def begin(self, ours: Channel) -> tuple[int, int]:
        """(pid, pidfd) of the init, which executes its operations from here on."""
        if log.shows("debug"):
            for operation in self.operations():
                log.debug(operation.describe())
        message = None if self.compiled is None else self.compiled.message(self.container.id)
        if self.compiled is None or message is None:
            self.compiled = None
            return self._fork(ours)
        return self._execute(ours, message, self.compiled.names)

    def _descriptors(self, names: list[str], directories: list[int], trees: list[int]) -> list[int]:
        plan = self.plan
        known = {"rootfs": plan.rootfs_fd}
        known.update((f"mount {index}", fd) for index, fd in plan.mount_fds.items())
        known.update((f"join {name}", fd) for name, fd in plan.namespaces.items())
        known.update((f"cgroup {index}", fd) for index, fd in enumerate(directories))
        known.update((f"cgroup mount {index}", fd) for index, fd in enumerate(trees))
        known.update((f"stream {index}", fd) for index, fd in enumerate(plan.options.streams or ()))
        if self.listener is not None:
            known["listener"] = self.listener.fileno()
        return [known[name] for name in names]

    def _execute(self, ours: Channel, message: bytes, names: list[str]) -> tuple[int, int]:
        group = self.container.cgroup
        directories: list[int] = []
        trees: list[int] = []
        try:
            directories += [os.open(path, _DIRECTORY) for path in group.dirs.values()]
            if any(name.startswith("cgroup mount") for name in names):
                clone = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH
                trees += [syscalls.open_tree(directory, "", clone) for directory in directories]
                for tree in trees:  # otherwise a mount on it in the container would appear on the host
                    syscalls.mount_setattr(tree, propagation=syscalls.MS_PRIVATE)
            into = directories[list(group.dirs).index("")] if group.unified else -1
            native = self.starter.native
            pid, pidfd = native.spawn(self.plan.clone_flags, self.channel.fileno(), into)
            ours.send_raw(message, self._descriptors(names, directories, trees))
            return pid, pidfd
        finally:
            for fd in (*directories, *trees):
                os.close(fd)

    def _world(self, tasks: list[int]) -> World:
        plan = self.plan
        world = World(self.container, self.channel)
        world.listener = self.listener
        world.console = plan.console
        world.tasks = tasks
        world.namespaces = plan.namespaces
        world.root = plan.rootfs_fd
        world.mount_fds = plan.mount_fds
        world.device_fds = plan.device_fds
        return world

    def _fork(self, ours: Channel) -> tuple[int, int]:
        from ringfence_runtime.launch.child import run_operations
        from ringfence_runtime.launch.stages import spawn

        group, staged = self.container.cgroup, self.plan.staged
        # A stage process may have left the user namespace that may enter a cgroup. Then the parent moves
        # the init.
        into = group.open_unified() if group.unified and not staged else -1
        tasks: list[int] = []
        try:
            tasks += [] if staged else group.open_tasks()
            operations, world = self.operations(), self._world(tasks)

            def child() -> None:
                ours.close()
                run_operations(operations, world, rootless=self.plan.rootless)

            return spawn(self.plan, into, child)
        finally:
            for fd in (into, *tasks):
                if fd >= 0:
                    os.close(fd)
