# SPDX-License-Identifier: Apache-2.0
"""Hooks: programs that run at six moments of a container's life, each with the state on its standard input.

A hook of the host gets the environment of its own entry only, never one from the image, and no loader
variable at all (CVE-2025-23266: LD_PRELOAD reached a privileged hook). A startContainer hook is a program of
the image: it has the identity of the workload, its seccomp filter, and its environment if it has none of
its own. The output of a hook only becomes part of an error.
"""

from __future__ import annotations

import os
import select
import time

from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.signals import reset_signals
from ringfence_runtime.spec.config import Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringfence_runtime.security.seccomp import Filter

__all__ = ["HookError", "Inside", "clean_environment", "run_hook", "run_hooks"]

_FORBIDDEN = ("LD_", "GLIBC_TUNABLES", "GCONV_PATH", "MALLOC_")
DEFAULT_TIMEOUT = 300  # seconds; a hook that hangs must not block the engine forever
_SAID = 1024  # bytes of a hook's last output that become part of the error


class HookError(Error):
    """A hook failed: the container is stopped and destroyed (runtime.md#lifecycle).

    `where` names the hook, `how` is the way in which it failed, and `said` is its last output.
    """

    def __init__(self, message: str = "", *, where: str = "", how: str = "", said: str = "") -> None:
        super().__init__(message or f"{where} failed {how}" + (f": {said}" if said else ""))
        self.where, self.how, self.said = where, how, said


def clean_environment(env: Sequence[str]) -> dict[str, str]:
    """The hook's own variables, without those that make the loader execute foreign code."""
    result: dict[str, str] = {}
    for item in env:
        name, _, value = item.partition("=")
        if name.startswith(_FORBIDDEN):
            log.warn(f"hook: the variable {name} is left out")
        else:
            result[name] = value
    return result


class Inside:
    """What a hook in the container has of the workload."""

    __slots__ = ("env", "seccomp")

    def __init__(self, env: Sequence[str], seccomp: Filter | None) -> None:
        self.env = env
        self.seccomp = seccomp


def _execute(hook: Hook, state_fd: int, output: int, cwd: str, inside: Inside | None) -> None:
    try:
        os.setsid()
        os.chdir(cwd)
        os.dup2(state_fd, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        syscalls.close_range(3, cloexec=True)
        reset_signals()
        arguments, env = list(hook.args) or [hook.path], _environment(hook, inside)
        if inside is not None and inside.seccomp is not None:
            # Without a listener of its own: a call for the agent fails with ENOSYS.
            syscalls.seccomp_filter(inside.seccomp.program, inside.seccomp.flags_without_listener())
        os.execve(hook.path, arguments, env)
    except OSError as error:
        os.write(2, f"cannot execute {hook.path}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _memfd(text: str) -> int:
    fd = os.memfd_create("state", os.MFD_CLOEXEC)
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _environment(hook: Hook, inside: Inside | None) -> dict[str, str]:
    """The environment of a hook without an `env`: the workload's in the container, the runtime's PATH outside
    of it, so that a shell script finds its programs.
    """
    if hook.env:
        return clean_environment(hook.env)
    if inside is not None:
        return {name: value for name, _, value in (item.partition("=") for item in inside.env)}
    return {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}


def run_hook(hook: Hook, state: str, *, cwd: str = "/", inside: Inside | None = None) -> None:
    """Runs one hook to its end or its timeout. At the timeout its whole process group is killed."""
    source, sink = _memfd(state), os.memfd_create("output", os.MFD_CLOEXEC)
    try:
        pid, pidfd = syscalls.clone3(0)
        if pid == 0:
            _execute(hook, source, sink, cwd, inside)
        timeout = hook.timeout or DEFAULT_TIMEOUT
        _wait(pid, pidfd, timeout, hook)
        os.close(pidfd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            os.lseek(sink, max(0, os.lseek(sink, 0, os.SEEK_END) - _SAID), os.SEEK_SET)
            said = os.read(sink, _SAID).decode(errors="replace").strip()
            how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
            raise HookError(where=_where(hook), how=how, said=said)
    finally:
        os.close(source)
        os.close(sink)


def _where(hook: Hook) -> str:
    return f"{hook.place}: {hook.path}"


def _wait(pid: int, pidfd: int, timeout: int, hook: Hook) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout
    while not poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
        if time.monotonic() >= deadline:
            try:
                os.killpg(pid, 9)
            except ProcessLookupError:
                syscalls.pidfd_send_signal(pidfd, 9)
            os.waitpid(pid, 0)
            os.close(pidfd)
            raise HookError(where=_where(hook), how=f"to end within {timeout} s, and was killed")


def run_hooks(hooks: Sequence[Hook], state: str, *, cwd: str = "/", inside: Inside | None = None) -> None:
    """Runs all hooks in order, in the directory `cwd` (the bundle, outside the container). Stops at the
    first failure.
    """
    for hook in hooks:
        run_hook(hook, state, cwd=cwd, inside=inside)
