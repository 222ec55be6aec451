# SPDX-License-Identifier: Apache-2.0
"""After counted losses, brings our picture of containers and processes back in line with the kernel, and
reports it: the records are lost, the knowledge is not.

- A record of a container's life did not fit the ring: the registry is compared with the kernel's table of
  slots.
- A container found no slot: as soon as one is free, the cgroups are walked in a thread, and the task iterator
  runs.
- A task could not be bound: the task iterator runs.
- The kernel skipped a program that follows tasks or containers, as one like it was preempted on that CPU (see
  docs/kernel-compat.md): a task may be unbound, a container not enrolled. The iterator runs, the cgroups are
  walked.
- A record of a process was lost: the processes of that container are read again, in a thread.

Work that a container can trigger at will is done at growing intervals. Verdicts cannot be recovered: they
were carried out in the kernel, and their loss is counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ringfence import log
from ringfence.abi import Drop, EventKind
from ringfence.bpf.losses import Losses, Lost
from ringfence.containers.hierarchy import CgroupDir
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import Process, ProcessTree, read_processes
from ringfence.faults import SupervisedThread

__all__ = ["PAUSE", "REPAIRED", "Adopting", "Resync"]

#: what is repaired, as the metric names it
REPAIRED = ("containers", "unenrolled", "unbound", "processes")
#: seconds between two walks of the cgroups, or runs of the iterator: first, doubled each time, at most
PAUSE = (5.0, 300.0)
_LIFE = frozenset(int(kind) for kind in EventKind if kind.name.startswith("CONTAINER_"))
_PROCESS = frozenset((int(EventKind.PROCESS_FORK), int(EventKind.PROCESS_EXEC), int(EventKind.PROCESS_EXIT)))
#: the same for the iterator alone after a program was skipped: what was missed may be an attack on purpose
SOON = (PAUSE[0], PAUSE[0])
_FOLLOW_TASKS = frozenset(("task_newtask", "sched_process_exec"))
_FOLLOW_CONTAINERS = frozenset(("cgroup_mkdir",))
_MOST = 32  # containers whose processes are read in one round; the others wait for the next


class Adopting(Protocol):
    """The part of ringfence.daemon.tracking.adoption that is used here."""

    def candidates(self) -> list[CgroupDir]: ...
    def take(self, found: Sequence[CgroupDir]) -> None: ...
    def arm(self) -> bool: ...
    def pids(self) -> Mapping[int, Sequence[int]]: ...


class _Seldom:
    """Something that is requested often, and done at intervals that grow while the requests go on."""

    def __init__(self, clock: Callable[[], float], pauses: tuple[float, float] = PAUSE) -> None:
        self._clock = clock
        self._shortest, self._longest = pauses
        self._pause, self._due, self._done = self._shortest, 0.0, 0.0
        self.wanted = False

    def want(self) -> None:
        self.wanted = True

    def take(self) -> bool:
        """Whether to do it now."""
        now = self._clock()
        if not self.wanted or now < self._due:
            return False
        if now - self._done > 2 * self._longest:
            self._pause = self._shortest
        self.wanted, self._done, self._due = False, now, now + self._pause
        self._pause = min(2 * self._pause, self._longest)
        return True


class Resync:
    """`tick` is called by a timer of the loop. `unused` says how many slots are free."""

    def __init__(
        self,
        losses: Losses,
        registry: Registry,
        tree: ProcessTree,
        adoption: Adopting,
        unused: Callable[[], int],
        in_loop: Callable[[Callable[[], None]], object],
        *,
        adopt: bool = True,
        misses: Callable[[], Mapping[str, int]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`adopt`: running containers may be taken in, also those from before the agent's start. `misses`:
        how often each program was skipped.
        """
        self._losses, self._registry, self._tree = losses, registry, tree
        self._adoption, self._unused, self._in_loop, self._may_adopt = adoption, unused, in_loop, adopt
        self._seen: dict[Lost, int] = {}
        self._slots: set[int] = set()  # slots whose processes must be read again
        self._walk, self._iterator = _Seldom(clock), _Seldom(clock)
        self._skipped = _Seldom(clock, SOON)
        self._misses, self._missed = misses, dict(misses())
        self._busy: dict[str, SupervisedThread] = {}
        self._log = log.get_logger("healing")
        self.repairs: Counter[str] = Counter(dict.fromkeys(REPAIRED, 0))

    @property
    def busy(self) -> bool:
        """Whether a thread of it runs."""
        return bool(self._busy)

    def tick(self) -> None:
        """Look for new losses, and repair what they may have left wrong."""
        now = self._losses.by_slot()
        grown = [lost for lost, count in now.items() if count > self._seen.get(lost, 0)]
        self._seen = now
        for lost in grown:
            self._note(lost)
        if any(lost.event in _LIFE and lost.reason == Drop.RING_FULL for lost in grown):
            self._compare()
        self._note_skipped()
        walks = self._may_adopt and self._walk.wanted and self._unused() and self._walk.take()
        if walks and not self._aside("walk", self._look_for_containers):
            self._walk.want()
        if self._iterator.take() or self._skipped.take():
            self._bind()
        if self._slots and "processes" not in self._busy:
            self._read_processes()

    def again(self) -> None:
        """The iterator found no end: run it once more, later."""
        self._iterator.want()

    def _note(self, lost: Lost) -> None:
        if lost.reason == Drop.TABLE_FULL and lost.event == EventKind.CONTAINER_CREATE:
            self._walk.want()
        elif lost.reason == Drop.TABLE_FULL and lost.event in _PROCESS:
            self._iterator.want()
        if lost.event in _PROCESS:
            self._slots.add(lost.slot)

    def _note_skipped(self) -> None:
        now = dict(self._misses())
        grown = {name for name, count in now.items() if count > self._missed.get(name, 0)}
        self._missed = now
        if grown & _FOLLOW_TASKS:
            self._skipped.want()
        if grown & _FOLLOW_CONTAINERS:
            self._walk.want()

    def _compare(self) -> None:
        found, gone = self._registry.reconcile()
        self.repairs["containers"] += 1
        self._log.info(
            "records of containers were lost: compared with the kernel's table", found=found, gone=gone
        )

    def _aside(self, name: str, work: Callable[[], None]) -> bool:
        """Run it in a thread, unless it does; a thread that fails is done, too. False: there is no thread
        to be had."""

        def once() -> None:
            try:
                work()
            finally:
                self._busy.pop(name, None)

        if name not in self._busy:
            # A failure is counted; the next loss asks again.
            self._busy[name] = SupervisedThread(f"healing-{name}", once, once=True)
            try:
                self._busy[name].start()
            except RuntimeError:  # no thread is to be had: a fork bomb fills the node
                del self._busy[name]
                return False
        return True

    def _look_for_containers(self) -> None:
        found = self._adoption.candidates()
        self._in_loop(lambda: self._enroll(found))

    def _enroll(self, found: Sequence[CgroupDir]) -> None:
        self._adoption.take(found)
        self.repairs["unenrolled"] += 1
        self._log.info("there are free slots again: containers enrolled late", looked_at=len(found))

    def _bind(self) -> None:
        settled = self._adoption.arm()
        self.repairs["unbound"] += 1
        self._log.info("tasks could not be bound when they were made: bound now", settled=settled)
        if not settled:
            self._iterator.want()

    def _read_processes(self) -> None:
        due = [container for container in self._registry if container.slot in self._slots][:_MOST]
        taken = {container.slot for container in due}
        # A slot without a container was freed since.
        self._slots = {s for s in self._slots - taken if any(c.slot == s for c in self._registry)}
        if due and not self._aside("processes", lambda: self._read(due)):
            self._slots |= taken

    def _read(self, containers: Sequence[Container]) -> None:
        asked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        pids = self._adoption.pids()
        for container in containers:
            found = read_processes(pids.get(container.slot, ()), container.cgroup_id)
            self._in_loop(lambda c=container, f=found: self._mend(c, f, asked))  # type: ignore[misc]

    def _mend(self, container: Container, found: Sequence[Process], asked_ns: int) -> None:
        added, ended = self._tree.mend(container.cgroup_id, found, asked_ns)
        self.repairs["processes"] += 1
        self._log.info("records of processes were lost: read anew from the kernel",
                       container=container.short_id, added=added, ended=ended)  # fmt: skip
