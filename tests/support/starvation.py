# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup that page cache fills, as an attacker would have the agent's."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.cgroups import PREFIX, hierarchies
from tests.support.waiting import wait_for

__all__ = ["MemoryCgroup", "memory_cgroup"]

_CHUNK = 1 << 20
_SOURCES = ("/usr/lib", "/usr/bin")


class MemoryCgroup:
    """One memory cgroup of either version."""

    def __init__(self, path: Path, *, v2: bool) -> None:
        self.path = path
        self._limit = path / ("memory.max" if v2 else "memory.limit_in_bytes")
        self._usage = path / ("memory.current" if v2 else "memory.usage_in_bytes")
        self._peak = path / ("memory.peak" if v2 else "memory.max_usage_in_bytes")
        self._none = "max" if v2 else "-1"

    @property
    def usage(self) -> int:
        """Bytes that are charged to it, with page cache."""
        return int(self._usage.read_text())

    @property
    def peak(self) -> int:
        """The most bytes that were ever charged to it."""
        return int(self._peak.read_text())

    def enter(self, pid: int = 0) -> None:
        """Move a process into it; 0: this one."""
        (self.path / "cgroup.procs").write_text(f"{pid or os.getpid()}\n")

    def limit(self, size: int | None) -> None:
        """Set the limit in bytes; None: no limit."""
        self._limit.write_text(self._none if size is None else str(size))

    @contextlib.contextmanager
    def full(self, room: int = 8 << 20) -> Iterator[None]:
        """This process keeps it full of page cache, up to `room` above what it uses now."""
        top = self.usage + room
        self.limit(top)
        done, is_full = threading.Event(), threading.Event()

        def fill() -> None:
            chunks = _uncached()
            while not done.is_set():
                if top - self.usage >= 64 << 10:
                    next(chunks)
                else:
                    is_full.set()
                    done.wait(0.001)

        thread = threading.Thread(target=fill)
        thread.start()
        try:
            wait_for(is_full.is_set, "the cgroup to be full")
            yield
        finally:
            done.set()
            thread.join()
            self.limit(None)


def _uncached() -> Iterator[None]:
    """Reads files that no other cgroup has in its cache, chunk by chunk, without end."""
    while True:
        for source in _SOURCES:
            for directory, _, names in os.walk(source):
                for name in names:
                    yield from _read(os.path.join(directory, name))


def _read(path: str) -> Iterator[None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while os.read(fd, _CHUNK):
            yield
    except OSError:
        return
    finally:
        os.close(fd)


@contextlib.contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup]:
    """A memory cgroup `rftest-memory-xxxxxx`, which this process leaves at the end."""
    found = hierarchies()
    v2 = "memory" not in found
    root = found["v2" if v2 else "memory"]
    own = _own_path(v2=v2)
    if v2:
        (root / "cgroup.subtree_control").write_text("+memory\n")
    path = root / f"{PREFIX}memory-{secrets.token_hex(3)}"
    path.mkdir()
    made = MemoryCgroup(path, v2=v2)
    try:
        yield made
    finally:
        (Path(f"{root}{own}") / "cgroup.procs").write_text(f"{os.getpid()}\n")
        _remove(path)


def _own_path(*, v2: bool) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (v2 and not controllers) or (not v2 and "memory" in controllers.split(",")):
            return path
    raise AssertionError("this process is in no memory cgroup")


def _remove(path: Path) -> None:
    def gone() -> bool:
        with contextlib.suppress(OSError):
            path.rmdir()
        return not path.exists()

    remove: Callable[[], bool] = gone
    wait_for(remove, f"{path} to be removed")
