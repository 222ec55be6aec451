# SPDX-License-Identifier: Apache-2.0
"""Answers about containers: `ringfence top`, `ringfence tree`, and what an agent has learned.

The loop's own data is copied in the loop, in one short call; it is formatted in the thread of the
local socket.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ringfence.abi import LEARNED_KEY
from ringfence.containers.model import Container
from ringfence.containers.naming import is_called
from ringfence.daemon.loop import Loop
from ringfence.daemon.parts import Loaded, Picture
from ringfence.export.container_metrics import ACTIVITY_CLASSES
from ringfence.export.escape import arguments, escape
from ringfence.export.redact import Redactor

__all__ = ["ContainerQueries"]

_TREE_MAX = 512  # processes of one container that are shown
Request = Mapping[str, Any]


class ContainerQueries:
    """Called in the thread of the local socket."""

    def __init__(self, loaded: Loaded, picture: Picture, redactor: Redactor, loop: Loop) -> None:
        self._kernel, self._slots = loaded.kernel, loaded.slots
        self._registry, self._tree, self._redactor = picture.registry, picture.tree, redactor
        self._ask = loop.ask

    def top(self, _request: Request) -> dict[str, Any]:
        """Tasks and counts of every container."""
        rows = []
        for container in self._registry.workloads():
            value = self._slots.read(container.slot)
            if value is None or value.cgroup != container.cgroup_id:
                continue
            sums = self._kernel.map("counters").sums(container.slot)
            counts = {name: sums[index] for index, name in ACTIVITY_CLASSES.items()}
            rows.append({**_about(container), "tasks": max(value.tasks, 0), "counts": counts})
        return {"time": time.monotonic(), "containers": rows}

    def learned(self, _request: Request) -> list[list[Any]]:
        """The counts of `syscalls.learn`: [kind, number, 32-bit, program, times] each. Slots are
        not distinguished: an agent that learns has one container.
        """
        rows = []
        for raw, value in self._kernel.map("learned").items():
            key = LEARNED_KEY.unpack_from(raw)
            comm = escape(key[4].partition(b"\0")[0], 64)
            rows.append([key[2], key[1], key[3], comm, int.from_bytes(value, sys.byteorder)])
        return rows

    def trees(self, request: Request) -> list[dict[str, Any]]:
        """The processes of every container, or of those that the request names."""
        words = [word for word in request.get("containers") or [] if isinstance(word, str)]
        wanted = [c for c in self._registry.workloads() if not words or any(_is(c, word) for word in words)]
        copies = self._ask(lambda: {c.cgroup_id: self._processes(c.cgroup_id) for c in wanted})
        return [{**_about(container), **self._shown(copies[container.cgroup_id])} for container in wanted]

    def _shown(self, processes: list[tuple[Any, ...]]) -> dict[str, Any]:
        boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        shown = [
            {
                "pid": pid,
                "ppid": ppid,
                "uid": uid,
                "started": datetime.fromtimestamp((boot_ns + start_ns) / 1e9, UTC).isoformat(
                    timespec="seconds"
                ),
                "comm": escape(comm.partition(b"\0")[0], 64),
                "exe": escape(exe),
                "args": self._redactor.arguments(arguments(args.rstrip(b"\0"))) if args else [],
            }
            for pid, ppid, uid, start_ns, comm, exe, args in processes[:_TREE_MAX]
        ]
        return {"processes": shown, "more": max(0, len(processes) - _TREE_MAX)}

    def _processes(self, cgroup: int) -> list[tuple[Any, ...]]:
        """Call it in the loop, which changes the objects of the tree."""
        return [
            (p.pid, p.ppid, p.uid, p.start_ns, p.comm, p.exe, p.args) for p in self._tree.of_container(cgroup)
        ]


def _about(container: Container) -> dict[str, Any]:
    facts = ("id", "name", "image", "runtime", "namespace", "pod")
    known = {name: escape(str(getattr(container, name) or ""), 256) for name in facts}
    return {**known, "cgroup": container.cgroup_id, "state": str(container.state)}


def _is(container: Container, word: str) -> bool:
    return is_called(word, container.id, container.name or "", container.namespace or "", container.pod or "")
