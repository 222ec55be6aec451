# SPDX-License-Identifier: Apache-2.0
"""The canary: once a second, a harmless operation that the kernel must report.

A cgroup of the agent is enrolled like a container, and a directory is made and removed in it. The
record takes the same path as every alert (hook, table of containers, ring, decode, dispatch). If
no record arrives, that path is broken, however healthy everything else looks. No task is ever in
these cgroups, and no policy applies to them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from ringfence import log
from ringfence.abi import PATTERN_ANY, EventKind
from ringfence.bpf.kernel import Pattern
from ringfence.config import Config
from ringfence.containers.hierarchy import Hierarchy, cgroup_id, own_cgroup
from ringfence.export import families

__all__ = ["Canary", "enabled"]

_NAME = "ringfence-canary-"
_REMEMBERED = 64  # probes whose later records may still arrive


def enabled(config: Config) -> bool:
    """Returns True if there is a canary: it needs the records of new cgroups."""
    return config.canary and config.observe.get(EventKind.CGROUP_MKDIR.label, "alerts") == "alerts"


class Canary:
    """Used by the loop only. `hierarchy` is the one that identifies containers."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy
        self._name = f"{_NAME}{os.getpid()}.0"
        self._path = hierarchy.mount / self._name
        self._seen = 0.0  # monotonic time of the last record; 0: not started
        self._count = 0
        self._failing = False
        self._log = log.get_logger("canary")
        self._cgroup = 0  # its id; 0: none
        self._probes: deque[int] = deque(maxlen=_REMEMBERED)

    @property
    def pattern(self) -> Pattern:
        """The pattern by which the kernel enrolls its cgroup: no other cgroup has this name."""
        return Pattern(PATTERN_ANY, self._name.encode())

    def start(self) -> None:
        """Make the cgroup, after the programs are attached. Remove those of agents that were
        killed.

        It is made at the root, as a container of its own. If the root cannot be written (0555, and
        a pod without CAP_DAC_OVERRIDE), it is made inside the cgroup of the agent's own container.
        """
        self._seen = time.monotonic()
        for other in self._path.parent.glob(f"{_NAME}*.0"):
            pid = other.name.removeprefix(_NAME).removesuffix(".0")
            if not os.path.exists(f"/proc/{pid}"):
                _remove(other)
        try:
            self._make()
        except OSError as error:
            self._complain(error)
        else:
            self.probe()

    def _make(self) -> None:
        try:
            self._path.mkdir()
        except PermissionError:
            own = own_cgroup(self._hierarchy)
            if own is None:
                raise
            self._path = own / self._name
            self._path.mkdir(exist_ok=True)
        self._cgroup = cgroup_id(self._path)

    def probe(self) -> None:
        """Make and remove a directory. Its records arrive later, at `is_own_event`."""
        try:
            (self._path / "beat").mkdir()
            self._probes.append(cgroup_id(self._path / "beat"))
            (self._path / "beat").rmdir()
            self._failing = False
        except OSError as error:
            self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._failing:
            self._log.error("no canary: its cgroup cannot be written", error=str(error))
        self._failing = True

    def is_own_event(self, event: Any) -> bool:
        """Returns True if a record of a cgroup is about the canary alone."""
        if event.cgroup in self._probes:
            if event.event == EventKind.CGROUP_MKDIR:
                self._seen = time.monotonic()
                self._count += 1
            return True
        return bool(self._cgroup) and event.cgroup == self._cgroup

    def samples(self) -> Iterator[Metric]:
        """The canary's records, and the time since the last one."""
        yield from families.canary(self._seen, self._count)

    def close(self) -> None:
        """Remove the cgroup."""
        _remove(self._path)


def _remove(path: Path) -> None:
    for directory in (path / "beat", path):
        with contextlib.suppress(OSError):
            directory.rmdir()
