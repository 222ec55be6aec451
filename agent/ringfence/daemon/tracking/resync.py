# SPDX-License-Identifier: Apache-2.0
"""After counted losses, brings the agent's picture of containers and processes back in line with
the kernel. Records are lost, the knowledge is not.

- A record of a container's life did not fit the ring: the registry is compared with the kernel's
  table of slots.
- No slot was free for a container: as soon as one is, the cgroups are walked in a thread, and the
  task iterator runs.
- A task could not be bound: the task iterator runs.
- The kernel skipped a program that follows tasks or containers, because the same program was
  preempted on that CPU (see docs/reference/kernel-compat.md): a task may be unbound, a container not
  enrolled. The iterator runs, the cgroups are walked.
- A record of a process was lost: the processes of that container are read again, in a thread.

Work that a container can trigger at will is done at growing intervals. Verdicts cannot be
recovered: they were enforced in the kernel, and their loss is counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from prometheus_client.core import Metric

from ringfence import log
from ringfence.abi import Drop, EventKind
from ringfence.bpf.losses import Lost
from ringfence.containers.hierarchy import CgroupDir
from ringfence.containers.model import Container
from ringfence.containers.tree import Process, read_processes
from ringfence.daemon.parts import Loaded, Picture
from ringfence.daemon.tracking.adoption import Adoption
from ringfence.export import families
from ringfence.faults import SupervisedThread

__all__ = ["PAUSE", "REPAIRED", "Resync"]

#: kinds of repairs, as the metric names them
REPAIRED = ("containers", "unenrolled", "unbound", "processes")
#: seconds between two walks of the cgroups, or runs of the iterator: first, doubled each time,
#: maximum
PAUSE = (5.0, 300.0)
_LIFE = frozenset(int(kind) for kind in EventKind if kind.name.startswith("CONTAINER_"))
_PROCESS = frozenset((int(EventKind.PROCESS_FORK), int(EventKind.PROCESS_EXEC), int(EventKind.PROCESS_EXIT)))
#: the same for the iterator alone after a program was skipped: an attacker may have caused that on
#: purpose
SOON = (PAUSE[0], PAUSE[0])
_FOLLOW_TASKS = frozenset(("task_newtask", "sched_process_exec"))
_FOLLOW_CONTAINERS = frozenset(("cgroup_mkdir",))
_MOST = 32  # containers whose processes are read in one round; the others wait for the next


class _Throttled:
    """Work that is requested often, and done at intervals that grow while the requests continue."""

    def __init__(self, clock: Callable[[], float], pauses: tuple[float, float] = PAUSE) -> None:
        self._clock = clock
        self._shortest, self._longest = pauses
        self._pause, self._due, self._done = self._shortest, 0.0, 0.0
        self.requested = False

    def request(self) -> None:
        self.requested = True

    def take(self) -> bool:
        """Returns True if it is to be done now."""
        now = self._clock()
        if not self.requested or now < self._due:
            return False
        if now - self._done > 2 * self._longest:
            self._pause = self._shortest
        self.requested, self._done, self._due = False, now, now + self._pause
        self._pause = min(2 * self._pause, self._longest)
        return True


class Resync:
    """`tick` is called by a timer of the loop."""

    def __init__(
        self,
        loaded: Loaded,
        picture: Picture,
        adoption: Adoption,
        in_loop: Callable[[Callable[[], None]], object],
        *,
        adopt: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`adopt`: running containers may be enrolled, also those from before the agent's start."""
        self._kernel, self._slots = loaded.kernel, loaded.slots
        self._registry, self._tree = picture.registry, picture.tree
        self._adoption, self._in_loop, self._may_adopt = adoption, in_loop, adopt
        self._seen: dict[Lost, int] = {}
        self._unread: set[int] = set()  # slots whose processes must be read again
        self._walk, self._iterator = _Throttled(clock), _Throttled(clock)
        self._skipped = _Throttled(clock, SOON)
        self._missed = self._misses()
        self._busy: dict[str, SupervisedThread] = {}
        self._log = log.get_logger("healing")
        self._repairs: Counter[str] = Counter(dict.fromkeys(REPAIRED, 0))

    @property
    def busy(self) -> bool:
        """True if one of its threads runs."""
        return bool(self._busy)

    def samples(self) -> Iterator[Metric]:
        """Repairs by kind."""
        yield families.counters(
            "ringfence_repairs",
            "Repairs of the agent's picture of containers and processes after a loss, by kind.",
            "what",
            self._repairs,
        )

    def tick(self) -> None:
        """Look for new losses, and repair what they may have left wrong."""
        now = self._kernel.losses.by_slot()
        grown = [lost for lost, count in now.items() if count > self._seen.get(lost, 0)]
        self._seen = now
        for lost in grown:
            self._note(lost)
        if any(lost.event in _LIFE and lost.reason == Drop.RING_FULL for lost in grown):
            self._compare()
        self._note_skipped()
        walks = self._may_adopt and self._walk.requested and self._slots.unused and self._walk.take()
        if walks and not self._aside("walk", self._look_for_containers):
            self._walk.request()
        if self._iterator.take() or self._skipped.take():
            self._bind()
        if self._unread and "processes" not in self._busy:
            self._read_processes()

    def _note(self, lost: Lost) -> None:
        if lost.reason == Drop.TABLE_FULL and lost.event == EventKind.CONTAINER_CREATE:
            self._walk.request()
        elif lost.reason == Drop.TABLE_FULL and lost.event in _PROCESS:
            self._iterator.request()
        if lost.event in _PROCESS:
            self._unread.add(lost.slot)

    def _note_skipped(self) -> None:
        now = self._misses()
        grown = {name for name, count in now.items() if count > self._missed.get(name, 0)}
        self._missed = now
        if grown & _FOLLOW_TASKS:
            self._skipped.request()
        if grown & _FOLLOW_CONTAINERS:
            self._walk.request()

    def _misses(self) -> dict[str, int]:
        """How often each program was skipped."""
        return {one.name: one.misses for one in self._kernel.program_stats()}

    def _compare(self) -> None:
        found, gone = self._registry.reconcile()
        self._repairs["containers"] += 1
        self._log.info(
            "records of containers were lost: compared with the kernel's table", found=found, gone=gone
        )

    def _aside(self, name: str, work: Callable[[], None]) -> bool:
        """Run it in a thread, unless one does. A thread that fails counts as done. Returns False
        if no thread can be started.
        """

        def once() -> None:
            try:
                work()
            finally:
                self._busy.pop(name, None)

        if name not in self._busy:
            # A failure is counted; the next loss requests it again.
            self._busy[name] = SupervisedThread(f"healing-{name}", once, once=True)
            try:
                self._busy[name].start()
            except RuntimeError:  # no thread can be started: a fork bomb fills the node
                del self._busy[name]
                return False
        return True

    def _look_for_containers(self) -> None:
        found = self._adoption.candidates()
        self._in_loop(lambda: self._enroll(found))

    def _enroll(self, found: Sequence[CgroupDir]) -> None:
        self._adoption.take(found)
        self._repairs["unenrolled"] += 1
        self._log.info("there are free slots again: containers enrolled late", looked_at=len(found))

    def _bind(self) -> None:
        settled = self._adoption.arm()
        self._repairs["unbound"] += 1
        self._log.info("tasks could not be bound when they were created: bound now", settled=settled)
        if not settled:
            self._iterator.request()

    def _read_processes(self) -> None:
        due = [container for container in self._registry if container.slot in self._unread][:_MOST]
        taken = {container.slot for container in due}
        # A slot without a container was freed since.
        self._unread = {s for s in self._unread - taken if any(c.slot == s for c in self._registry)}
        if due and not self._aside("processes", lambda: self._read(due)):
            self._unread |= taken

    def _read(self, containers: Sequence[Container]) -> None:
        asked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        pids = self._adoption.pids()
        for container in containers:
            found = read_processes(pids.get(container.slot, ()), container.cgroup_id)
            self._in_loop(partial(self._mend, container, found, asked))

    def _mend(self, container: Container, found: Sequence[Process], asked_ns: int) -> None:
        added, ended = self._tree.reconcile(container.cgroup_id, found, asked_ns)
        self._repairs["processes"] += 1
        self._log.info("records of processes were lost: read again from the kernel",
                       container=container.short_id, added=added, ended=ended)  # fmt: skip
