# SPDX-License-Identifier: Apache-2.0
"""The end of a container, or of a launch that failed: processes, cgroup, state, poststop hooks.

The state goes last of what is on disk: while it is there, `delete --force` finds what is left.
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
    """End a child of ours and take its status."""
    assert pid > 0  # to kill(2) anything else is a group of processes
    try:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def end(container: Container) -> None:
    """Kill all that runs in it, and wait for the end of its init."""
    container.cgroup.kill()
    try:
        pidfd = container.open_init()
    except StateError:
        return
    try:
        syscalls.pidfd_send_signal(pidfd, 9)
        # Somebody may have put it in a frozen cgroup of his own, where it would not die.
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
    """Remove what is left of a stopped container; then its poststop hooks run, whose failure is a warning.

    `config` is its configuration where the caller has it already.
    """
    hooks: Sequence[Hook] = ()
    try:
        hooks = (config or container.config()).hooks["poststop"]
    except Error as error:
        if os.path.exists(container.directory):  # else another delete, or the end of `run`, is at it, too
            log.warn(str(error))
    container.cgroup.destroy()
    container.destroy()
    run_poststop(container, hooks)


def run_poststart(container: Container, config: Config) -> None:
    """HookError where one fails: then the start has failed, and the caller stops the container."""
    hooks = config.hooks["poststart"]
    if hooks:
        run_hooks(hooks, container.hook_state("running", container.pid), cwd=container.bundle)


def run_poststop(container: Container, hooks: Sequence[Hook]) -> None:
    """Each of them, whatever became of those before (runtime.md#lifecycle, step 13)."""
    for hook in hooks:
        try:
            run_hooks([hook], container.hook_state("stopped", 0), cwd=container.bundle)
        except HookError as error:
            log.warn(
                f"poststop hook failed {error.how}: {error.where}" + (f": {error.said}" if error.said else "")
            )


def _is_replaced(container: Container) -> bool:
    """Whether it was deleted while it was made, and what has its name now is another one."""
    try:
        with open(f"{container.directory}/state.json", "rb") as file:
            created = strictjson.loads(file.read())["created"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(created != container.created)


class Undo:
    """What a launch has made so far. If it fails, `run` takes it back in reverse order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._steps: list[Callable[[], None]] = []
        self._by_name: list[Callable[[], None]] = []
        self._first: list[Callable[[], None]] = []
        self._container: Container | None = None
        self._hooks: Sequence[Hook] = ()

    def add(self, step: Callable[[], None], *, by_name: bool = False) -> None:
        """One more step to take back. `by_name`: of what another container of the same name has, too."""
        self._steps.append(step)
        if by_name:
            self._by_name.append(step)

    def add_first(self, step: Callable[[], None]) -> None:
        """A step that the container's own removal includes, once it exists."""
        self._first.append(step)

    def made(self, container: Container, config: Config) -> None:
        """The container exists from here on: its state goes at the end, and then poststop hooks run."""
        self._first.clear()
        self._container, self._hooks = container, config.hooks["poststop"]

    def depth(self) -> int:
        """How much there is to take back."""
        return len(self._steps)

    def back_to(self, depth: int) -> None:
        """Take back what was made since `depth`, as that is done anew."""
        while len(self._steps) > depth:
            self._steps.pop()()

    def run(self) -> None:
        """Take all back. Where something could not be, the state stays for `delete --force`."""
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
