# SPDX-License-Identifier: Apache-2.0
"""`run` in the foreground: waits for the workload, passes signals on, shows its terminal."""

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


def prepare_console(options: Options) -> int:
    """Without an engine this process shows the terminal. Returns the child's end of a channel; `wait_for`
    receives the master from the other end.

    Output that no terminal shows has lines that end in LF, as with runc: scripts read it.
    """
    options.plain_terminal = not os.isatty(1)
    options.terminal, theirs = pair()
    return theirs.sock.detach()


def prepare_terminal(plan: Plan) -> None:
    """The same for the init of a container."""
    plan.console = prepare_console(plan.options)


def forward_signals(pidfd: int) -> None:
    """Passes every signal to the workload, from before it runs: the first signal may come at once."""

    def handler(number: int, _: object) -> None:
        try:
            syscalls.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass

    passed = [number for number in range(1, 32) if number not in _KEPT]
    for number in passed:
        _signal.signal(number, handler)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, passed)  # the caller may have blocked them


def wait_for(pid: int, pidfd: int, terminal: Channel | None) -> int:
    """Waits for the end, shows the terminal meanwhile, and returns the exit code (128 + N for signal N)."""
    if terminal is not None:
        _carry(terminal.receive_fd(), pidfd)
    while True:
        waited, status = os.waitpid(pid, 0)
        if waited == pid:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code


def _carry(master: int, pidfd: int) -> None:
    """Copies between the standard streams and the container's terminal until the container ends."""
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
                # Nothing more is read before the container has taken it.
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
