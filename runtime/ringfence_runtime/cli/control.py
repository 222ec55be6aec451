# SPDX-License-Identifier: Apache-2.0
"""kill, delete, pause and resume."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.cli.options import Globals, expect, parse
from ringfence_runtime.errors import NotFoundError, StateError, UsageError
from ringfence_runtime.launch import ending
from ringfence_runtime.state import Container, Store

__all__ = ["delete", "kill", "pause", "resume", "signal_number"]


def signal_number(text: str) -> int:
    """`15`, `TERM`, `SIGTERM`, `RTMIN+3`."""
    if text.isdecimal():
        if 0 <= int(text) <= 64:
            return int(text)
        raise UsageError(f"signal {text} is not between 0 and 64")
    name = text.upper().removeprefix("SIG")
    base, plus, offset = name.partition("+")
    if base == "RTMIN" and (not plus or offset.isdecimal()):
        return int(_signal.SIGRTMIN) + int(offset or 0)
    base, minus, offset = name.partition("-")
    if base == "RTMAX" and (not minus or offset.isdecimal()):
        return int(_signal.SIGRTMAX) - int(offset or 0)
    number = {"CLD": 17, "IOT": 6, "POLL": 29}.get(name) or getattr(_signal, f"SIG{name}", None)
    if not name or number is None or name.startswith("_"):
        raise UsageError(f"unknown signal {text!r}")
    return int(number)


def kill(settings: Globals, arguments: list[str]) -> int:
    """`kill`."""
    parsed = parse(arguments, {"all": "f", "a": "=all", "regex": "f", "r": "=regex"})
    words = expect(parsed, "kill", 1, 2)
    store = Store(settings.root)
    number = signal_number(words[1] if len(words) > 1 else "TERM")
    if not parsed.flag("regex"):
        _kill(store.load(words[0]), number, all_of_it=parsed.flag("all"))
        return 0
    for name in _matching(store, words[:1]):
        try:
            _kill(store.load(name), number, all_of_it=parsed.flag("all"))
        except (NotFoundError, StateError) as error:
            log.warn(error.message)  # this one has ended, others may not have
    return 0


def _kill(container: Container, number: int, *, all_of_it: bool) -> None:
    if all_of_it:
        if not container.alive() and not container.cgroup.exists():
            raise StateError(f"container not running: {container.id}")
        _kill_all(container, number)
        return
    pidfd = container.open_init()
    try:
        syscalls.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
    if number == 9:
        if container.cgroup.directory("freezer") is not None and container.cgroup.frozen():
            # A task frozen by a version 1 freezer dies only after it is thawed.
            container.cgroup.freeze(frozen=False)
        if not container.config().linux.new("pid"):
            # Without its own pid namespace, the end of the init does not end the others.
            container.cgroup.kill()


def _kill_all(container: Container, number: int) -> None:
    if number == 9 and container.cgroup.dirs:
        container.cgroup.kill()
        return
    for pid in container.processes():
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _matching(store: Store, patterns: list[str]) -> list[str]:
    """Returns the containers with a name that contains a match of a pattern."""
    import re

    try:
        compiled = [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise UsageError(f"--regex: {error}") from None
    return [name for name in store.names() if any(pattern.search(name) for pattern in compiled)]


def delete(settings: Globals, arguments: list[str]) -> int:
    """`delete`."""
    parsed = parse(arguments, {"force": "f", "f": "=force", "regex": "f"}, interleaved=True)
    names = expect(parsed, "delete", 1)
    store = Store(settings.root)
    if parsed.flag("regex"):
        names = _matching(store, names)
    for name in names:
        _delete(store, name, force=parsed.flag("force"))
    return 0


def _delete(store: Store, name: str, *, force: bool) -> None:
    try:
        lock = store.lock(name)
    except NotFoundError:
        if force:
            return
        raise
    try:
        container = _load_or_clean(store, name, force=force)
        if container is None:
            return
        status = container.status()
        if status in ("running", "paused", "created", "creating"):
            if not force and status != "created":
                raise StateError(
                    f"cannot delete container {name} that is not stopped: {status}",
                    hint="delete --force kills it first",
                )
            ending.end(container)
        ending.destroy(container)
    finally:
        os.close(lock)


def _load_or_clean(store: Store, name: str, *, force: bool) -> Container | None:
    """Returns the container, or None after removing the directory of one with an unreadable state.

    Without a state nothing was created: it is written before the first cgroup is created. A damaged state
    does not name the container's cgroup, and a guess could be a foreign one.
    """
    try:
        return store.load(name)
    except (NotFoundError, StateError) as error:
        if not force:
            raise
        directory = f"{store.root}/{name}"
        if not os.path.isdir(directory):
            return None  # another delete had the lock first
        if isinstance(error, StateError):
            log.warn(f"{error.message}; its processes and its cgroup, if any, are left")
    for entry in os.listdir(directory):
        os.unlink(f"{directory}/{entry}")
    os.rmdir(directory)
    return None


def pause(settings: Globals, arguments: list[str]) -> int:
    """`pause`."""
    [name] = expect(parse(arguments, {}), "pause", 1, 1)
    container = Store(settings.root).load(name)
    if container.status() not in ("running", "created"):
        raise StateError(f"container {name} is {container.status()}, not running")
    container.cgroup.freeze(frozen=True)
    return 0


def resume(settings: Globals, arguments: list[str]) -> int:
    """`resume`."""
    [name] = expect(parse(arguments, {}), "resume", 1, 1)
    container = Store(settings.root).load(name)
    if not container.cgroup.frozen():
        raise StateError(f"container {name} is not paused")
    container.cgroup.freeze(frozen=False)
    return 0
