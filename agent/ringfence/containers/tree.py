# SPDX-License-Identifier: Apache-2.0
"""Processes of containers and their origin: PID and start time -> program, parent.

Updated by fork, exec and exit; queried for the ancestry of an alert and for `ringfence tree`. A PID alone
does not identify a process, as it is reused. The number of entries is limited, and a fork bomb only evicts
its own history: the evicted entry is the oldest of a container with more than its share.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from ringfence.abi import EventKind
from ringfence.events import Event, ExecEvent, TaskEvent
from ringfence_linux.procfs import TICK_NS, read_stat

__all__ = [
    "ENTRYPOINT", "FORGOTTEN", "OUTSIDE", "RUNTIME_EXEC", "Ancestor", "Process", "ProcessTree",
    "read_processes",
]  # fmt: skip

K = TypeVar("K")
LIVE_MAX = 8192
DEAD_MAX = 2048
DEPTH_MAX = 16
ARGS_MAX = 256


class Process:
    """One thread group. Mutable: exec changes what it runs, and this is the hot path.

    `start_ns` from /proc is only exact to a clock tick.
    """

    __slots__ = ("args", "comm", "container", "exe", "pid", "ppid", "pstart_ns", "start_ns", "uid")

    def __init__(
        self,
        pid: int,
        start_ns: int,
        ppid: int,
        pstart_ns: int,
        container: int,
        comm: bytes,
        exe: bytes,
        args: bytes,
        uid: int,
    ) -> None:
        self.pid, self.start_ns, self.ppid, self.pstart_ns = pid, start_ns, ppid, pstart_ns
        self.container, self.comm, self.exe, self.args, self.uid = container, comm, exe, args, uid

    def __repr__(self) -> str:
        return f"Process({self.pid}, {self.start_ns}, {self.exe!r})"


#: names of ancestors that are no process of the container
ENTRYPOINT, RUNTIME_EXEC = b"(entrypoint)", b"(runtime exec)"
OUTSIDE, FORGOTTEN = b"(outside the container)", b"(unknown)"


class Ancestor(NamedTuple):
    """One step of an ancestry. `missing`: only the PID is known; `comm` says in parentheses what it is:
    the runtime that started the container's entrypoint, or an exec session in it, or a forgotten process.
    """

    pid: int
    start_ns: int
    comm: bytes
    exe: bytes
    args: bytes
    missing: bool = False


class _Pool(Generic[K]):
    """Processes by a key, oldest first, at most `size`; also by container, for a fair eviction."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.evicted = 0
        self._all: dict[K, Process] = {}
        self._of: dict[int, dict[K, Process]] = {}  # container -> its processes

    def __len__(self) -> int:
        return len(self._all)

    def get(self, key: K) -> Process | None:
        return self._all.get(key)

    def of(self, container: int) -> list[Process]:
        return list(self._of.get(container, {}).values())

    def put(self, key: K, process: Process) -> None:
        self.pop(key)
        if len(self._all) >= self.size:
            self._evict(process.container)
        self._all[key] = process
        self._of.setdefault(process.container, {})[key] = process

    def pop(self, key: K) -> Process | None:
        process = self._all.pop(key, None)
        if process is not None:
            mine = self._of[process.container]
            del mine[key]
            if not mine:
                del self._of[process.container]
        return process

    def _evict(self, newcomer: int) -> None:
        """Evicts a process of the newcomer's container if that has its share, else of the largest one."""
        self.evicted += 1
        container = newcomer
        if len(self._of.get(newcomer, ())) * len(self._of) < self.size:
            container = max(self._of, key=lambda one: len(self._of[one]))
        self.pop(next(iter(self._of[container])))


class ProcessTree:
    """The processes of all containers. Not thread-safe: the event loop owns it."""

    def __init__(self, *, live_max: int = LIVE_MAX, dead_max: int = DEAD_MAX) -> None:
        self._live: _Pool[int] = _Pool(live_max)  # by PID
        self._dead: _Pool[tuple[int, int]] = _Pool(dead_max)  # by PID and start
        self._handlers = {
            int(EventKind.PROCESS_FORK): self._fork,
            int(EventKind.PROCESS_EXEC): self._exec,
            int(EventKind.PROCESS_EXIT): self._exit,
        }

    def __len__(self) -> int:
        return len(self._live)

    @property
    def dead(self) -> int:
        """The number of ended processes that are remembered for the ancestry of others."""
        return len(self._dead)

    @property
    def capacity(self) -> tuple[int, int]:
        """The number of living processes, and its maximum."""
        return len(self._live), self._live.size

    @property
    def capacity_of_dead(self) -> tuple[int, int]:
        """The number of ended processes, and its maximum."""
        return len(self._dead), self._dead.size

    @property
    def evicted(self) -> int:
        """The number of living processes evicted because the table was full."""
        return self._live.evicted

    def on_event(self, event: Event) -> None:
        """Processes PROCESS_FORK, PROCESS_EXEC and PROCESS_EXIT; ignores other events."""
        handler = self._handlers.get(event.event)
        if handler is not None:
            handler(event)  # type: ignore[operator]

    def _fork(self, event: TaskEvent) -> None:
        pid = event.child_pid
        if event.child_tid != pid:
            return  # a thread
        parent = self._live.get(event.pid)
        if parent is not None and parent.start_ns == event.start_ns:
            exe, args = parent.exe, parent.args
        else:
            exe = args = b""
        self._add(
            Process(
                pid,
                event.child_start_ns,
                event.pid,
                event.start_ns,
                event.container,
                event.comm_raw,
                exe,
                args,
                event.uid,
            )
        )

    def _exec(self, event: ExecEvent) -> None:
        process = self._live.get(event.pid)
        if process is None or process.start_ns // TICK_NS != event.start_ns // TICK_NS:
            process = Process(
                event.pid, event.start_ns, event.ppid, 0, event.container, b"", b"", b"", event.uid
            )
            self._add(process)
        process.start_ns, process.comm, process.uid = event.start_ns, event.comm_raw, event.uid
        process.exe, process.args = event.path, event.args_raw[: event.args_len][:ARGS_MAX]

    def _exit(self, event: TaskEvent) -> None:
        process = self._live.get(event.pid)
        # Otherwise it is the late exit of a previous process with this PID.
        if process is not None and process.start_ns // TICK_NS == event.start_ns // TICK_NS:
            self._live.pop(event.pid)
            self._retire(process)

    def _add(self, process: Process) -> None:
        if (before := self._live.get(process.pid)) is not None:  # its exit was lost
            self._retire(before)
        self._live.put(process.pid, process)

    def _retire(self, process: Process) -> None:
        self._dead.put((process.pid, process.start_ns), process)

    # -- questions -----------------------------------------------------------

    def find(self, pid: int, start_ns: int) -> Process | None:
        """Returns the process, living or dead; a start time of 0 matches the living one."""
        process = self._live.get(pid)
        if process is not None and (not start_ns or process.start_ns // TICK_NS == start_ns // TICK_NS):
            return process
        return self._dead.get((pid, start_ns))

    def ancestry(self, pid: int, start_ns: int, *, ppid: int = 0, first: int = 0) -> list[Ancestor]:
        """Returns parent, grandparent and so on, at most DEPTH_MAX, up to the container's first process.

        The last one is `missing` if only its PID is known. `ppid` is the event's value, for a process that is
        not in the tree. `first` is the PID of the container's first process, 0: not known.
        """
        child = self.find(pid, start_ns)
        parent_pid, parent_start = (child.ppid, child.pstart_ns) if child else (ppid, 0)
        child_pid, child_start = pid, start_ns
        chain: list[Ancestor] = []
        while parent_pid and len(chain) < DEPTH_MAX:
            parent = self.find(parent_pid, parent_start)
            # A parent is never younger than its child: then the PID was reused.
            if parent is None or parent.start_ns > child_start:
                known = child is not None and parent is None
                origin = _origin(parent_pid, parent_start, child_pid, first) if known else FORGOTTEN
                chain.append(Ancestor(parent_pid, parent_start, origin, b"", b"", missing=True))
                break
            comm = parent.comm.partition(b"\0")[0]
            chain.append(Ancestor(parent.pid, parent.start_ns, comm, parent.exe, parent.args))
            child, child_pid, child_start = parent, parent.pid, parent.start_ns
            parent_pid, parent_start = parent.ppid, parent.pstart_ns
        return chain

    def of_container(self, container: int) -> list[Process]:
        """Returns the living processes of a container, oldest first."""
        return self._live.of(container)

    def forget(self, container: int) -> int:
        """Removes the processes of a container that is gone. Returns how many remained (exits were lost)."""
        left = self.of_container(container)
        for process in left:
            self._live.pop(process.pid)
        return len(left)

    # -- adoption ------------------------------------------------------------

    def seed(self, pids: Iterable[int], container: int, proc: Path = Path("/proc")) -> int:
        """Adds processes of an adopted container from /proc; known ones stay. Returns the number added."""
        return self._take(read_processes(pids, container, proc))

    def reconcile(self, container: int, found: Sequence[Process], asked_ns: int) -> tuple[int, int]:
        """Synchronises a container with `found`, all its processes at the time `asked_ns` (CLOCK_BOOTTIME).

        Adds unknown processes and ends those that are gone. Returns both numbers.
        """
        there = {process.pid for process in found}
        ended = [p for p in self.of_container(container) if p.pid not in there and p.start_ns < asked_ns]
        for process in ended:
            self._live.pop(process.pid)
            self._retire(process)
        return self._take(found), len(ended)

    def _take(self, found: Sequence[Process]) -> int:
        added = 0
        seen = {process.pid: process for process in found}
        for process in seen.values():
            parent = seen.get(process.ppid)
            process.pstart_ns = parent.start_ns if parent else 0
            if self.find(process.pid, process.start_ns) is None:
                self._add(process)
                added += 1
        return added


def _origin(parent: int, parent_start: int, child: int, first: int) -> bytes:
    """Returns what the unknown parent of a known process is.

    A process that a fork in the container created knows its parent's start. Others came from outside: the
    entrypoint, or a session that the runtime started in the container (`kubectl exec`).
    """
    if parent_start or not first:
        return FORGOTTEN
    if child == first:
        return ENTRYPOINT
    # PID 1 of the host is the parent of orphans, too.
    return OUTSIDE if parent == 1 else RUNTIME_EXEC


def read_processes(pids: Iterable[int], container: int, proc: Path = Path("/proc")) -> list[Process]:
    """Reads a container's processes from /proc; skips those that end meanwhile. From any thread."""
    return list(_read(pids, container, proc))


def _read(pids: Iterable[int], container: int, proc: Path) -> Iterator[Process]:
    for pid in islice(pids, LIVE_MAX):
        before = read_stat(pid, proc)
        if before is None:
            continue
        base = proc / str(pid)
        try:
            exe = _link(base / "exe")
            with open(base / "cmdline", "rb") as cmdline:
                args = cmdline.read(ARGS_MAX)
            uid = base.stat().st_uid
        except OSError:
            continue
        after = read_stat(pid, proc)
        if after is None or after.start != before.start:
            continue  # the PID was reused meanwhile
        yield Process(pid, before.start * TICK_NS, before.ppid, 0, container, before.comm, exe, args, uid)


def _link(path: Path) -> bytes:
    try:
        return os.readlink(os.fsencode(path))
    except OSError:
        return b""
