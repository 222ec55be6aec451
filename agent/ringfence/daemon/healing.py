# SPDX-License-Identifier: Apache-2.0
"""After a counted loss, the picture of containers and processes is read anew from the kernel, and that is
told: what was lost are records, not the knowledge of who runs.

- A record of a container's life was lost: the cgroups are walked and the task iterator runs, as at a start.
- A record of a process was lost: the processes of that container are read anew, in a thread.

Verdicts are not repaired: what was done was done in the kernel, the loss is counted, no iterator knows it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from ringfence import log
from ringfence.abi import EventKind
from ringfence.bpf.losses import Losses, Lost
from ringfence.containers.model import Container
from ringfence.containers.registry import Registry
from ringfence.containers.tree import Process, ProcessTree, read_processes

__all__ = ["REPAIRED", "Healer"]

#: what is repaired, as the metric names it
REPAIRED = ("containers", "processes")
_LIFE = frozenset(int(kind) for kind in EventKind if kind.name.startswith(("CONTAINER_", "CGROUP_")))
_PROCESS = frozenset((int(EventKind.PROCESS_FORK), int(EventKind.PROCESS_EXEC), int(EventKind.PROCESS_EXIT)))
_MOST = 32  # containers whose processes are read in one round; the others wait for the next


class Healer:
    """`tick` is called by a timer of the loop. `adopt` takes in what runs, `pids` lists processes."""

    def __init__(
        self,
        losses: Losses,
        registry: Registry,
        tree: ProcessTree,
        adopt: Callable[[], object],
        pids: Callable[[Container], Sequence[int]],
        in_loop: Callable[[Callable[[], None]], None],
    ) -> None:
        self._losses, self._registry, self._tree = losses, registry, tree
        self._adopt, self._pids, self._in_loop = adopt, pids, in_loop
        self._seen: dict[Lost, int] = {}
        self._slots: set[int] = set()  # whose processes are to be read
        self._reading = False
        self._log = log.get_logger("healing")
        self.repairs: Counter[str] = Counter(dict.fromkeys(REPAIRED, 0))

    def tick(self) -> None:
        """Look for new losses, and mend what they may have left wrong."""
        now = self._losses.by_slot()
        grown = [lost for lost, count in now.items() if count > self._seen.get(lost, 0)]
        self._seen = now
        if any(lost.event in _LIFE for lost in grown):
            self._adopt()
            self.repairs["containers"] += 1
            self._log.info("records of containers were lost: read anew from the kernel")
        self._slots |= {lost.slot for lost in grown if lost.event in _PROCESS}
        if self._slots and not self._reading:
            self._read_processes()

    def _read_processes(self) -> None:
        due = [container for container in self._registry if container.slot in self._slots][:_MOST]
        taken = {container.slot for container in due}
        # A slot without a container was freed since.
        self._slots = {s for s in self._slots - taken if any(c.slot == s for c in self._registry)}
        if not due:
            return
        self._reading = True
        threading.Thread(target=self._read, args=(due,), name="healing", daemon=True).start()

    def _read(self, containers: Iterable[Container]) -> None:
        for container in containers:
            asked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            found = read_processes(self._pids(container), container.cgroup_id)
            self._in_loop(lambda c=container, f=found, a=asked: self._mend(c, f, a))  # type: ignore[misc]
        self._in_loop(self._done)

    def _mend(self, container: Container, found: Sequence[Process], asked_ns: int) -> None:
        added, ended = self._tree.mend(container.cgroup_id, found, asked_ns)
        self.repairs["processes"] += 1
        self._log.info("records of processes were lost: read anew from the kernel",
                       container=container.short_id, added=added, ended=ended)  # fmt: skip

    def _done(self) -> None:
        self._reading = False
