# SPDX-License-Identifier: Apache-2.0
"""Kills the tasks of condemned containers (probes/include/condemn.h).

The kernel kills a task of such a container at its next call. A task that makes no call, or sleeps
in one, is killed here: by its cgroup, and by the kernel's table of processes, which also has those
that left it. A container stays condemned until it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric

from ringfence import log
from ringfence.abi import STATE_CONDEMNED, TASK, TaskValue
from ringfence.containers.hierarchy import Hierarchy
from ringfence.containers.registry import Registry
from ringfence.daemon.parts import Loaded
from ringfence.export import families
from ringfence.export.escape import escape
from ringfence.response.kill import kill_process

__all__ = ["CondemnedContainers", "condemned_metrics", "kill_cgroup"]

_ROUNDS = 16  # lists of a cgroup's processes that are read in a row: they may fork meanwhile


class CondemnedContainers:
    """Used by the loop only, but for `samples`."""

    def __init__(self, hierarchy: Hierarchy, loaded: Loaded, registry: Registry) -> None:
        self._hierarchy, self._slots, self._registry = hierarchy, loaded.slots, registry
        self._count, self._processes = loaded.kernel.map("condemned"), loaded.kernel.map("processes")
        self._live: dict[int, str] = {}  # cgroup -> label
        self._total = 0
        self._log = log.get_logger("condemned")

    def look(self) -> None:
        """Kill what is left of every condemned container."""
        if not self._count.get_int(0):
            self._live = {}
            return
        found = {}
        for slot, value in self._slots.used():
            if value.state & STATE_CONDEMNED:
                container = self._registry.get(slot, value.cgroup)
                found[value.cgroup] = container.short_id if container else str(value.cgroup)
                if container and container.cgroup_path:
                    kill_cgroup(self._hierarchy.directory(container.cgroup_path))
        self._kill_tasks(found.keys())
        for cgroup in found.keys() - self._live.keys():
            self._total += 1
            self._log.error("a container is condemned: all of its tasks are killed", container=found[cgroup])
        self._live = found

    def samples(self) -> Iterator[Metric]:
        """The condemned containers that are still there, and how many there were."""
        return condemned_metrics(list(self._live.values()), self._total)

    def _kill_tasks(self, condemned: Collection[int]) -> None:
        """Kill every process of the kernel's table that belongs to these cgroups."""
        for key, raw in self._processes.items() if condemned else ():
            task = TaskValue._make(TASK.unpack(raw))
            if task.container in condemned:
                kill_process(int.from_bytes(key, sys.byteorder), task.start_ns, "condemned")


def condemned_metrics(live: Iterable[str], total: int) -> Iterator[Metric]:
    """`live`: labels of the condemned containers that are still there; `total` since the start."""
    family = GaugeMetricFamily(
        "ringfence_container_condemned",
        "1 for a container of which every task is killed, because a killed call may have had an effect.",
        labels=["container"],
    )
    for label in live:
        family.add_metric([escape(label, 64)], 1)
    yield family
    yield families.counter(
        "ringfence_condemned_containers",
        "Containers that were condemned: a killed call may have had an effect that stays.",
        {},
        total,
    )


def kill_cgroup(directory: Path) -> None:
    """Kills every process in a cgroup and below it."""
    with suppress(OSError):
        (directory / "cgroup.kill").write_text("1")
        return
    for _ in range(_ROUNDS):
        if not sum(_kill_if_in(list_, pid) for list_ in _lists_below(directory) for pid in _pids(list_)):
            return


def _lists_below(directory: Path) -> Iterator[Path]:
    for path, _, files in os.walk(directory):
        if "cgroup.procs" in files:
            yield Path(path, "cgroup.procs")


def _pids(cgroup_procs: Path) -> list[int]:
    with suppress(OSError):
        return list(map(int, cgroup_procs.read_text().split()))
    return []


def _kill_if_in(cgroup_procs: Path, pid: int) -> bool:
    """Sends SIGKILL. The number may be of another process by now, so its cgroup is read again."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if pid not in _pids(cgroup_procs) or pid == os.getpid():
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
