# SPDX-License-Identifier: Apache-2.0
"""events: statistics of a container every few seconds, and each out-of-memory kill."""

from __future__ import annotations

import os
import select
import time

from ringfence_linux import strictjson
from ringfence_runtime.cgroup.stats import parse_flat, stats
from ringfence_runtime.cli.options import Globals, expect, parse
from ringfence_runtime.errors import StateError, UsageError
from ringfence_runtime.state import Container, Store

__all__ = ["events"]


def oom_kills(container: Container) -> int:
    """Returns the number of out-of-memory kills in the container's cgroup."""
    group = container.cgroup
    v1 = group.directory("memory")
    path = f"{v1}/memory.oom_control" if v1 is not None else f"{group.unified}/memory.events"
    try:
        with open(path, encoding="ascii") as file:
            return parse_flat(file.read()).get("oom_kill", 0)
    except OSError:
        return 0


def _interval(text: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0}
    digits = text.rstrip("ms")
    try:
        value = float(digits) * units[text[len(digits) :] or "s"]
    except (ValueError, KeyError):
        raise UsageError(f"--interval: {text!r} is not a duration such as 5s") from None
    if value <= 0:
        raise UsageError("--interval must be above zero")
    return value


def events(settings: Globals, arguments: list[str]) -> int:
    """Prints until the container ends, or once with --stats."""
    parsed = parse(arguments, {"stats": "f", "interval": "s"}, interleaved=True)
    [name] = expect(parsed, "events", 1, 1)
    interval = _interval(parsed.text("interval", "5s"))
    container = Store(settings.root).load(name)
    if not container.alive():
        raise StateError(f"container {name} is not running")
    if not container.cgroup.dirs:
        raise StateError(f"container {name} has no cgroup, thus no statistics")
    if parsed.flag("stats"):
        _print(name, "stats", stats(container.cgroup))
        return 0
    _follow(container, interval)
    return 0


class Bell:
    """A descriptor that becomes ready when a cgroup runs out of memory, in either version.

    Version 1 signals an eventfd registered in cgroup.event_control, version 2 an exceptional condition
    (POLLPRI) on memory.events. The counts are read afterwards: the signal only says when.
    """

    def __init__(self, container: Container) -> None:
        group = container.cgroup
        v1 = group.directory("memory")
        self._fds: list[int] = []
        if v1 is None:
            self.fd = self._open(f"{group.unified}/memory.events")
            self.mask = select.POLLPRI
        else:
            self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._fds.append(self.fd)
            self.mask = select.POLLIN
            control = self._open(f"{v1}/memory.oom_control")
            with open(f"{v1}/cgroup.event_control", "w", encoding="ascii") as file:
                file.write(f"{self.fd} {control}")

    def _open(self, path: str) -> int:
        self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return self._fds[-1]

    def hear(self) -> None:
        """Rearms it after a signal."""
        try:
            if self.mask == select.POLLIN:
                os.eventfd_read(self.fd)
            else:
                os.pread(self.fd, 4096, 0)
        except OSError:
            pass

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


_LOOKS, _LOOK_MS = 50, 20  # version 1 signals before it kills: poll for the kill this often


def _follow(container: Container, interval: float) -> None:
    name, kills = container.id, oom_kills(container)
    pidfd, bell = container.open_init(), Bell(container)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(bell.fd, bell.mask)
    due, looks, ended = time.monotonic(), 0, False
    try:
        while not ended:
            if time.monotonic() >= due:
                _print(name, "stats", stats(container.cgroup))
                due = time.monotonic() + interval
            left = max(0.0, due - time.monotonic()) * 1000
            for fd, _ in poll.poll(min(left, _LOOK_MS) if looks else left):
                ended = ended or fd == pidfd
                if fd == bell.fd:
                    bell.hear()
                    looks = _LOOKS
            now = oom_kills(container)  # also after the end: the kill may have caused it
            looks = 0 if now > kills else max(0, looks - 1)
            for _ in range(now - kills):
                _print(name, "oom", None)
            kills = max(now, kills)
    finally:
        bell.close()
        os.close(pidfd)


def _print(name: str, kind: str, data: object) -> None:
    record: dict[str, object] = {"type": kind, "id": name}
    if data is not None:
        record["data"] = data
    print(strictjson.dumps(record), flush=True)
