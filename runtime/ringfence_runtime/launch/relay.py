# SPDX-License-Identifier: Apache-2.0
"""`run` in the foreground: wait for the workload, pass signals on, carry a terminal where there is one."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select

from ringfence_linux import syscalls
from ringfence_runtime.launch.channel import Channel, pair

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.plan import Options, Plan

__all__ = ["forward_signals", "prepare_console", "prepare_terminal", "wait_for"]

_master_end: list[Channel] = []
_KEPT = frozenset(
    (
        _signal.SIGKILL,
        _signal.SIGSTOP,
        _signal.SIGCHLD,
        _signal.SIGPIPE,
        _signal.SIGURG,
        _signal.SIGSEGV,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGILL,
        _signal.SIGTRAP,
        _signal.SIGTSTP,
        _signal.SIGTTIN,
        _signal.SIGTTOU,
        _signal.SIGCONT,
    )
)


def prepare_console() -> int:
    """No engine takes the terminal, so this process does: one end for the child, the other kept for
    `wait_for`.
    """
    ours, theirs = pair()
    _master_end.append(ours)
    return theirs.sock.detach()


def prepare_terminal(plan: Plan) -> None:
    """The same for the init of a container."""
    plan.console = prepare_console()


def forward_signals(pidfd: int) -> None:
    """Pass every signal on to the workload, from before it runs: it may be told to end at once."""

    def handler(number: int, _: object) -> None:
        try:
            syscalls.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass

    passed = [number for number in range(1, 32) if number not in _KEPT]
    for number in passed:
        _signal.signal(number, handler)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, passed)  # whoever started us may have them blocked


def wait_for(pid: int, pidfd: int, options: Options) -> int:
    """The workload's exit code, 128 + N for one that signal N ended."""
    if _master_end:
        _carry(_master_end.pop().receive_fd(), pidfd)
    while True:
        waited, status = os.waitpid(pid, 0)
        if waited == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _carry(master: int, pidfd: int) -> None:
    """Copy between our own standard descriptors and the container's terminal until the container ends."""
    from ringfence_runtime.launch.terminal import Terminal

    terminal = Terminal(master)
    poll = select.poll()
    poll.register(master, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN)
    more = True
    try:
        while True:
            ready = dict(poll.poll())
            if 0 in ready:
                # No more is read before the container has taken it.
                poll.unregister(0)
                more = terminal.read_input()
                poll.modify(master, select.POLLIN | select.POLLOUT)
            events = ready.get(master, 0)
            if events & select.POLLOUT and terminal.to_container():
                poll.modify(master, select.POLLIN)
                if more:
                    poll.register(0, select.POLLIN)
            if events & ~select.POLLOUT:
                if not terminal.from_container():
                    return
            elif pidfd in ready:
                return
    finally:
        terminal.restore()
