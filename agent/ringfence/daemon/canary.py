# SPDX-License-Identifier: Apache-2.0
"""The canary: each second something harmless that the kernel must tell us of.

A cgroup of the agent's own is enrolled as a container is, and a directory is made and removed in it. The
record takes the way of every alert (hook, table of containers, ring, decode, dispatch); when none comes
back, that way is broken, whatever else looks well. No task is ever in these cgroups, and no policy is asked.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from ringfence import log
from ringfence.abi import PATTERN_ANY, EventKind
from ringfence.bpf.kernel import Pattern
from ringfence.config import Config
from ringfence.containers.hierarchy import cgroup_id
from ringfence.export.stats import Stats

__all__ = ["Canary", "sings"]

_NAME = "ringfence-canary-"


def sings(config: Config) -> bool:
    """Whether there is one: it needs to hear of cgroups that are made."""
    return config.canary and config.observe.get(EventKind.CGROUP_MKDIR.label, "alerts") == "alerts"


class Canary:
    """Called by the loop only. `mount` is the hierarchy that says whose a task is."""

    def __init__(self, mount: Path, stats: Stats) -> None:
        self._path = mount / f"{_NAME}{os.getpid()}.0"
        self._stats = stats
        self._failing = False
        self._log = log.get_logger("canary")
        self.cgroup = 0  # its id; 0: there is none

    @property
    def pattern(self) -> Pattern:
        """By which the kernel enrolls it: no other cgroup has this name."""
        return Pattern(PATTERN_ANY, self._path.name.encode())

    def start(self) -> None:
        """Make the cgroup, after the programs are attached; remove what an agent that was killed left."""
        self._stats.canary_seen = time.monotonic()
        for other in self._path.parent.glob(f"{_NAME}*.0"):
            pid = other.name.removeprefix(_NAME).removesuffix(".0")
            if not os.path.exists(f"/proc/{pid}"):
                _remove(other)
        with contextlib.suppress(OSError):
            self._path.mkdir()
            self.cgroup = cgroup_id(self._path)
        self.beat()

    def beat(self) -> None:
        """One act. What it comes to is heard later, by `heard`."""
        try:
            (self._path / "beat").mkdir()
            (self._path / "beat").rmdir()
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._log.error("no canary: its cgroup cannot be written", error=str(error))
            self._failing = True

    def heard(self, kind: int) -> None:
        """A record of its cgroup came back."""
        if kind == EventKind.CGROUP_MKDIR:
            self._stats.canary_seen = time.monotonic()
            self._stats.canaries += 1

    def close(self) -> None:
        """Remove the cgroup."""
        _remove(self._path)


def _remove(path: Path) -> None:
    for directory in (path / "beat", path):
        with contextlib.suppress(OSError):
            directory.rmdir()
