# SPDX-License-Identifier: Apache-2.0
"""Counts how often a cgroup hit its limits: pids.events, memory.events, and their cgroup v1 equivalents."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.containers.hierarchy import hierarchy_mounts

__all__ = ["LimitReader"]

_V2 = (("processes", "pids.events", "max"), ("memory", "memory.events", "oom_kill"))
_V1 = (("processes", "pids", "pids.events", "max"), ("memory", "memory", "memory.oom_control", "oom_kill"))


class LimitReader:
    """Reads the counts of a cgroup path; a missing file counts as 0."""

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        """`process`: the procfs directory of a process that sees the host's hierarchies."""
        v1, v2 = hierarchy_mounts(process)
        self._files: list[tuple[str, str, str, str]] = [
            (what, v1[controller], file, key) for what, controller, file, key in _V1 if controller in v1
        ]
        known = {what for what, _, _, _ in self._files}
        self._files += [(what, v2, file, key) for what, file, key in _V2 if v2 and what not in known]

    def read(self, path: str) -> Mapping[str, int]:
        """Returns how often the cgroup was denied a process, and how often the OOM killer ended one."""
        return {what: _count(f"{mount}{path}/{file}", key) for what, mount, file, key in self._files}


def _count(file: str, key: str) -> int:
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        lines = os.read(fd, 4096).decode("ascii", "replace").splitlines()
    except OSError:
        return 0
    finally:
        os.close(fd)
    values = dict(line.split(None, 1) for line in lines if " " in line)
    count = values.get(key, "0")
    return int(count) if count.isdigit() else 0
