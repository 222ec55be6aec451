# SPDX-License-Identifier: Apache-2.0
"""`ringfence exec`: runs another program in a running sandbox, by the runtime's own command.

As in `run`, no descriptor of the host's terminal or files is passed in.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ringfence.sandbox.errors import translated
from ringfence.sandbox.place import Place, find
from ringfence.sandbox.remove import init_of, open_of_init
from ringfence.sandbox.request import Roots
from ringfence.sandbox.start import check_terminal
from ringfence.sandbox.stdio import Streams
from ringfence_runtime.errors import Error as RuntimeProblem

__all__ = ["Inner", "execute"]


class Inner(NamedTuple):
    """The program to run."""

    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    tty: bool = False
    interactive: bool = False
    detach: bool = False


def execute(roots: Roots, name: str, inner: Inner) -> int:
    """Runs it and returns its status."""
    from ringfence_runtime.inherited import mend_inherited
    from ringfence_runtime.seal import ensure_sealed

    mend_inherited()
    check_terminal(tty=inner.tty, interactive=inner.interactive)
    with translated():
        place = find(roots, name)
        init_of(place)
        ensure_sealed()
        words = ["--tty"] if inner.tty else []
        words += ["--detach"] if inner.detach else []
        words += [f"--env={each}" for each in inner.environment]
        words += [f"--cwd={inner.workdir}"] if inner.workdir else []
        words += _user(place, inner.user) if inner.user else []
        words += ["--", name, *inner.command]
        if inner.tty:
            return _enter(roots, words)
        if inner.detach:
            _nothing()
            return _enter(roots, words)
        return _between(roots, words, interactive=inner.interactive)


def _enter(roots: Roots, words: list[str]) -> int:
    from ringfence_runtime.cli.execute import execute as enter
    from ringfence_runtime.cli.options import parse_globals

    settings, _ = parse_globals(["--root", roots.runtime])
    return enter(settings, words)


def _between(roots: Roots, words: list[str], *, interactive: bool) -> int:
    """Runs a child that enters the sandbox with pipes, and copies between these and the own descriptors."""
    from ringfence_linux import syscalls
    from ringfence_runtime.launch.relay import forward_signals

    streams = Streams(interactive=interactive)
    failures, failure = os.pipe2(os.O_CLOEXEC)
    streams.lend()
    child = os.fork()
    if child == 0:
        streams.forget()
        _child(roots, words, failure)
    streams.restore()
    os.close(failure)
    pidfd = syscalls.pidfd_open(child)
    forward_signals(pidfd)
    streams.carry(pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(failures, encoding="utf-8", errors="backslashreplace") as file:
        message, _, hint = file.read().partition("\0")
    if message:
        raise RuntimeProblem(message, hint=hint)
    return status if status >= 0 else 128 - status


def _child(roots: Roots, words: list[str], failure: int) -> None:
    """Does not return."""
    code = 125
    os.setpgid(0, 0)  # a terminal's interrupt arrives only through the parent, not twice
    try:
        code = _enter(roots, words)
    except RuntimeProblem as error:
        os.write(failure, f"{error.message}\0{error.hint}".encode(errors="backslashreplace"))
    except OSError as error:
        os.write(failure, f"{error.strerror}".encode())
    finally:
        os._exit(code)


def _user(place: Place, user: str) -> list[str]:
    """Returns a user of the sandbox as numbers."""
    from ringfence_runtime.images import resolve_user

    root = open_of_init(place, "root", os.O_PATH | os.O_DIRECTORY)
    try:
        found = resolve_user(root, user)
    finally:
        os.close(root)
    groups = [f"--additional-gids={','.join(map(str, found.groups))}"] if found.groups else []
    return [f"--user={found.uid}:{found.gid}", *groups]


def _nothing() -> None:
    """Does nothing: a detached program has no input or output to copy."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.close(null)
