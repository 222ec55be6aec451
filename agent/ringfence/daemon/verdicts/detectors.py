# SPDX-License-Identifier: Apache-2.0
"""Feeds the detectors with enrichment's findings in bundles, verdicts, limits and task counts of containers,
and the kernel's helper programs on the host. Called by the loop only; each round is bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from ringfence.abi import Action
from ringfence.containers.limits import LimitReader
from ringfence.containers.model import Container, Facts, State
from ringfence.containers.registry import Registry
from ringfence.containers.slots import SlotTable
from ringfence.events import Event
from ringfence.response.detectors import Finding, Sweep, finding

__all__ = ["HELPERS", "Detectors"]

#: the files that name a program which the kernel runs as root on the host
HELPERS = (
    Path("/proc/sys/kernel/core_pattern"),
    Path("/proc/sys/kernel/modprobe"),
    Path("/sys/kernel/uevent_helper"),
)
_EVERY = 5  # rounds from one look at a container to the next
_MOST = 256  # containers a round
_MANY_TASKS = 1000
_LOOKS = 6  # that the number of tasks is compared with


class DeskLike(Protocol):
    """Reports findings."""

    def finding(self, found: Finding) -> None: ...


class Detectors:
    """`tick` is called each second."""

    def __init__(
        self,
        pipeline: DeskLike,
        registry: Registry,
        slots: SlotTable,
        off: Collection[str] = (),
        *,
        helpers: Collection[Path] = HELPERS,
        limits: LimitReader | None = None,
    ) -> None:
        self._pipeline, self._registry, self._slots, self._off = pipeline, registry, slots, frozenset(off)
        self._limits = limits or LimitReader()
        self._helpers = {path: _content(path) for path in helpers}
        self._sweep = Sweep()
        self._told: dict[int, set[tuple[str, str]]] = {}
        self._tasks: dict[int, deque[int]] = {}
        self._hits: dict[int, Mapping[str, int]] = {}
        self._round = 0

    def on_known(self, container: Container, facts: Facts) -> None:
        """A runtime identified a container: check its bundle."""
        for suspicion in facts.suspicions:
            self._once(suspicion.detector, container, {"what": suspicion.what})
        for mount in container.posture.sensitive_mounts if container.posture else ():
            if mount.kind == "host-root":
                self._once("host-root", container, {"target": mount.target, "writable": mount.writable})

    def on_gone(self, container: Container) -> None:
        """Its slot is free: forget it."""
        for known in (self._told, self._tasks, self._hits):
            known.pop(container.cgroup_id, None)
        self._sweep.forget(container.cgroup_id)

    def on_verdict(self, event: Event, container: Container | None, rule: str) -> None:
        """A rule matched."""
        if container is None:
            return
        refused = event.action in (Action.DENY, Action.KILL)
        details = self._sweep.verdict(container.cgroup_id, rule, event.time_ns, refused=refused)
        if details:
            self._tell("sweep", container, details, event)

    def tick(self) -> None:
        """One round: the node's helpers, and a fifth of the containers."""
        for path, before in self._helpers.items():
            now = _content(path)
            if now != before:
                self._helpers[path] = now
                details = {"file": str(path), "before": before, "now": now}
                self._tell("helper-changed", None, details)
        self._round = (self._round + 1) % _EVERY
        due = [c for c in self._registry if c.cgroup_id % _EVERY == self._round and c.state is State.RUNNING]
        for container in due[:_MOST]:
            self._look(container)

    def _look(self, container: Container) -> None:
        cgroup = container.cgroup_id
        value = self._slots.read(container.slot)
        if value is not None and value.cgroup == cgroup:
            looks, now = self._tasks.setdefault(cgroup, deque([0], _LOOKS)), max(value.tasks, 0)
            before = min(looks)
            looks.append(now)
            if now >= _MANY_TASKS and now >= 2 * before:
                looks.extend([now] * _LOOKS)  # told of: it is what is usual from here on
                self._tell("task-burst", container, {"tasks": now, "before": before})
        hits, known = self._limits.read(container.cgroup_path), self._hits.get(cgroup)
        self._hits[cgroup] = hits
        grown = {what: count for what, count in hits.items() if count > (known or {}).get(what, 0)}
        # What was hit before we first looked counts for a container that we saw being born.
        if grown and (known is not None or not container.adopted):
            self._tell("limit-hit", container, {"limit": sorted(grown), "times": sum(grown.values())})

    def _once(self, detector: str, container: Container, details: Mapping[str, Any]) -> None:
        told = self._told.setdefault(container.cgroup_id, set())
        if (key := (detector, str(details))) not in told:
            told.add(key)
            self._tell(detector, container, details)

    def _tell(
        self,
        detector: str,
        container: Container | None,
        details: Mapping[str, Any],
        event: Event | None = None,
    ) -> None:
        if detector not in self._off:
            self._pipeline.finding(finding(detector, container, details, event))


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:256].rstrip("\n")
    except OSError:
        return ""
