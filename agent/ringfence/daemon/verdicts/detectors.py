# SPDX-License-Identifier: Apache-2.0
"""The state of the detectors. They get facts of bundles, verdicts, limits and task counts of
containers, and the usermode helpers of the host. They return what they found. Used by the loop
only; each round is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.abi import Action
from ringfence.containers.limits import LimitReader
from ringfence.containers.model import Container, Facts, State
from ringfence.containers.slots import SlotTable
from ringfence.events import Event
from ringfence.response.detectors import Finding, Sweep, finding

__all__ = ["HELPERS", "Detectors"]

#: files that name a program which the kernel runs as root on the host
HELPERS = (
    Path("/proc/sys/kernel/core_pattern"),
    Path("/proc/sys/kernel/modprobe"),
    Path("/sys/kernel/uevent_helper"),
)
_EVERY = 5  # rounds from one look at a container to the next
_MOST = 256  # containers per round
_MANY_TASKS = 1000
_LOOKS = 6  # earlier looks that the number of tasks is compared with


class Detectors:
    """`tick` is called each second. `off` are the ids of detectors that are switched off."""

    def __init__(
        self,
        slots: SlotTable,
        off: Collection[str] = (),
        *,
        helpers: Collection[Path] = HELPERS,
        limits: LimitReader | None = None,
    ) -> None:
        self._slots, self._off = slots, frozenset(off)
        self._limits = limits or LimitReader()
        self._helpers = {path: _content(path) for path in helpers}
        self._sweep = Sweep()
        self._reported: dict[int, set[tuple[str, str]]] = {}
        self._tasks: dict[int, deque[int]] = {}
        self._hits: dict[int, Mapping[str, int]] = {}
        self._round = 0

    def identified(self, container: Container, facts: Facts) -> list[Finding]:
        """A runtime identified a container: check its bundle."""
        suspicions = [(one.detector, {"what": one.what}) for one in facts.suspicions]
        mounts = container.posture.sensitive_mounts if container.posture else ()
        roots = [
            ("host-root", {"target": mount.target, "writable": mount.writable})
            for mount in mounts
            if mount.kind == "host-root"
        ]
        return self._wanted(self._once(container, [*suspicions, *roots]))

    def forget(self, container: Container) -> None:
        """The slot of this container is free: drop what is known about it."""
        for known in (self._reported, self._tasks, self._hits):
            known.pop(container.cgroup_id, None)
        self._sweep.forget(container.cgroup_id)

    def verdict(self, event: Event, container: Container | None, rule: str, outcome: str) -> list[Finding]:
        """A rule matched; `outcome` is that of the call."""
        if container is None:
            return []
        refused = event.action in (Action.DENY, Action.KILL)
        details = self._sweep.verdict(container.cgroup_id, rule, event.time_ns, outcome, refused=refused)
        return self._wanted([finding("sweep", container, details, event)]) if details else []

    def tick(self, containers: Iterable[Container]) -> Iterator[Finding]:
        """One round: the host's helpers, and a fifth of the containers. A finding is given at once:
        what follows it may fail.
        """
        yield from self._wanted(self._changed_helpers())
        self._round = (self._round + 1) % _EVERY
        due = [c for c in containers if c.cgroup_id % _EVERY == self._round and c.state is State.RUNNING]
        for container in due[:_MOST]:
            yield from self._wanted(self._task_burst(container))
            yield from self._wanted(self._limit_hits(container))

    def _changed_helpers(self) -> Iterator[Finding]:
        for path, before in self._helpers.items():
            now = _content(path)
            if now != before:
                self._helpers[path] = now
                yield finding("helper-changed", None, {"file": str(path), "before": before, "now": now})

    def _task_burst(self, container: Container) -> Iterator[Finding]:
        cgroup = container.cgroup_id
        value = self._slots.read(container.slot)
        if value is None or value.cgroup != cgroup:
            return
        looks, now = self._tasks.setdefault(cgroup, deque([0], _LOOKS)), max(value.tasks, 0)
        before = min(looks)
        looks.append(now)
        if now >= _MANY_TASKS and now >= 2 * before:
            looks.extend([now] * _LOOKS)  # reported: this number is the usual one from here on
            yield finding("task-burst", container, {"tasks": now, "before": before})

    def _limit_hits(self, container: Container) -> Iterator[Finding]:
        cgroup = container.cgroup_id
        hits, known = self._limits.read(container.cgroup_path), self._hits.get(cgroup)
        self._hits[cgroup] = hits
        grown = {what: count for what, count in hits.items() if count > (known or {}).get(what, 0)}
        # Hits from before the first look count only for a container that was seen from its
        # creation.
        if grown and (known is not None or not container.adopted):
            yield finding("limit-hit", container, {"limit": sorted(grown), "times": sum(grown.values())})

    def _once(
        self, container: Container, suspicions: Iterable[tuple[str, dict[str, Any]]]
    ) -> Iterator[Finding]:
        reported = self._reported.setdefault(container.cgroup_id, set())
        for detector, details in suspicions:
            if (key := (detector, str(details))) not in reported:
                reported.add(key)
                yield finding(detector, container, details)

    def _wanted(self, found: Iterable[Finding]) -> list[Finding]:
        return [one for one in found if one.detector.id not in self._off]


def _content(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:256].rstrip("\n")
    except OSError:
        return ""
