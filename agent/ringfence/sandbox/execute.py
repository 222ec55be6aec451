# SPDX-License-Identifier: Apache-2.0
"""`ringfence exec`: one more program in a running sandbox, by the runtime's own command."""

from __future__ import annotations

import os
from typing import NamedTuple

from ringfence.sandbox.errors import translated
from ringfence.sandbox.place import find
from ringfence.sandbox.remove import init_of
from ringfence.sandbox.request import Roots

__all__ = ["Inner", "execute"]


class Inner(NamedTuple):
    """What to run."""

    command: tuple[str, ...]
    environment: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    tty: bool = False
    interactive: bool = False
    detach: bool = False


def execute(roots: Roots, name: str, inner: Inner) -> int:
    """Run it; gives its status."""
    with translated():
        from ringfence_runtime.cli.execute import execute as runtime_execute
        from ringfence_runtime.cli.options import parse_globals
        from ringfence_runtime.seal import ensure_sealed

        place = find(roots, name)
        pid = init_of(place)
        ensure_sealed()
        words = ["--tty"] if inner.tty else []
        words += ["--detach"] if inner.detach else []
        words += [f"--env={each}" for each in inner.environment]
        words += [f"--cwd={inner.workdir}"] if inner.workdir else []
        words += _user(pid, inner.user) if inner.user else []
        if not inner.interactive or inner.detach:
            _no_input()
        settings, _ = parse_globals(["--root", roots.runtime])
        return runtime_execute(settings, [*words, "--", name, *inner.command])


def _user(pid: int, user: str) -> list[str]:
    """A user of the sandbox's own, as numbers."""
    from ringfence_runtime.images import resolve_user

    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = resolve_user(root, user)
    finally:
        os.close(root)
    groups = [f"--additional-gids={','.join(map(str, found.groups))}"] if found.groups else []
    return [f"--user={found.uid}:{found.gid}", *groups]


def _no_input() -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
