# SPDX-License-Identifier: Apache-2.0
"""The end of a container, or of a launch that failed: processes, cgroup, state, poststop hooks.

The state is removed last: while it exists, `delete --force` finds what is left.
"""

from __future__ import annotations

import os
import select

from ringfence_linux import strictjson, syscalls
from ringfence_runtime import log
from ringfence_runtime.cgroup import removal
from ringfence_runtime.errors import Error, StateError
from ringfence_runtime.launch.hooks import HookError, run_hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ringfence_runtime.spec import Config
    from ringfence_runtime.spec.config import Hook
    from ringfence_runtime.state import Container

__all__ = ["Undo", "destroy", "end", "kill_child", "run_poststart"]

_PATIENCE_MS = 10_000


def kill_child(pid: int) -> None:
    """Kills a child of this process and takes its status."""
    assert pid > 0  # kill(2) takes other numbers for groups of processes
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def end(container: Container) -> None:
    """Kills everything in the container and waits for the end of its init."""
    container.cgroup.kill()
    try:
        pidfd = container.open_init()
    except StateError:
        return
    try:
        syscalls.pidfd_send_signal(pidfd, 9)
        # It may have been moved to another, frozen cgroup, where it would not die.
        removal.thaw_elsewhere(container.cgroup, container.pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_PATIENCE_MS):
            raise Error(f"container {container.id} does not die")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def destroy(container: Container, config: Config | None = None) -> None:
    """Removes what is left of a stopped container, then runs its poststop hooks. Their failure is a
    warning.

    `config` is the configuration, if the caller already has it.
    """
    hooks: Sequence[Hook] = ()
    try:
        hooks = (config or container.config()).hooks["poststop"]
    except Error as error:
        if os.path.exists(container.directory):  # else another process removes it as well
            log.warn(str(error))
    container.cgroup.destroy()
    container.destroy()
    run_poststop(container, hooks)


def run_poststart(container: Container, config: Config) -> None:
    """Raises HookError if one fails. The start has then failed, and the caller stops the container."""
    hooks = config.hooks["poststart"]
    if hooks:
        run_hooks(hooks, container.hook_state("running", container.pid), cwd=container.bundle)


def run_poststop(container: Container, hooks: Sequence[Hook]) -> None:
    """Runs each hook, whether or not those before it failed (runtime.md#lifecycle, step 13)."""
    for hook in hooks:
        try:
            run_hooks([hook], container.hook_state("stopped", 0), cwd=container.bundle)
        except HookError as error:
            log.warn(
                f"poststop hook failed {error.how}: {error.where}" + (f": {error.said}" if error.said else "")
            )


def _is_replaced(container: Container) -> bool:
    """Returns True if it was deleted during its creation, and another container has its name now."""
    try:
        with open(f"{container.directory}/state.json", "rb") as file:
            created = strictjson.loads(file.read())["created"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(created != container.created)


class Undo:
    """What a launch has created so far. If the launch fails, `run` removes it in reverse order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: list[Callable[[], None]] = []
        self._by_name: list[Callable[[], None]] = []
        self._first: list[Callable[[], None]] = []
        self._container: Container | None = None
        self._hooks: Sequence[Hook] = ()

    def add(self, step: Callable[[], None], *, by_name: bool = False) -> None:
        """Adds a step to undo. `by_name`: it would also affect another container of the same name."""
        self._steps.append(step)
        if by_name:
            self._by_name.append(step)

    def add_first(self, step: Callable[[], None]) -> None:
        """Adds a step that the removal of the container includes, as soon as the container exists."""
        self._first.append(step)

    def made(self, container: Container, config: Config) -> None:
        """The container exists from here on: its state is removed last, and then poststop hooks run."""
        self._first.clear()
        self._container, self._hooks = container, config.hooks["poststop"]

    def depth(self) -> int:
        """The number of steps to undo."""
        return len(self._steps)

    def back_to(self, depth: int) -> None:
        """Undoes the steps that were added since `depth`, because they will be repeated."""
        while len(self._steps) > depth:
            self._steps.pop()()

    def run(self) -> None:
        """Undoes all steps. If one fails, the state stays for `delete --force`."""
        whole, replaced = True, self._container is not None and _is_replaced(self._container)
        for step in reversed([*self._first, *self._steps]):
            if replaced and step in self._by_name:
                continue
            try:
                step()
            except (Error, OSError) as error:
                whole = False
                log.warn(f"while undoing the launch of {self.name}: {error}")
        if self._container is None or replaced:
            return
        if whole:
            self._container.destroy()
            run_poststop(self._container, self._hooks)
        else:
            log.warn(f"something is left of {self.name}: delete --force removes it")
