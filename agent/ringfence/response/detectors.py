# SPDX-License-Identifier: Apache-2.0
"""Detectors: findings that no rule on a single call can make.

They use facts of a bundle, limits that were hit, or many rules matched within seconds. Detectors only report;
they stop nothing. Their ids appear in alerts, metrics and `detectors.off` like those of rules. Nothing here
reads a file or queries the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ringfence.containers.model import Container
from ringfence.containers.tree import Ancestor, ProcessTree
from ringfence.events import Event
from ringfence.response.ids import AlertIds

__all__ = ["DETECTORS", "Detector", "Finding", "Sweep", "finding"]


class Detector(NamedTuple):
    """One detector. `rows` are those of the escape checklist."""

    id: str
    title: str
    severity: str
    attack: tuple[str, ...]
    rows: tuple[int, ...]


_ALL = (
    Detector("image-link", "An image has a link where its runtime expects a directory or a device",
             "high", ("T1611",), (36, 37, 39)),
    Detector("spec-sysctl", "A container's configuration sets a sysctl of the node", "high",
             ("T1611",), (40,)),
    Detector("spec-loader", "An image sets loader variables that hooks on the host inherit", "high",
             ("T1574.006", "T1611"), (43,)),
    Detector("spec-text", "A container's configuration contains a path with `..`, or text with a command",
             "high", ("T1611", "T1610"), (41,)),
    Detector("host-root", "A container has the root of the host mounted", "medium", ("T1611",), (14, 44, 45)),
    Detector("helper-changed", "A usermode helper of the host was changed", "critical",
             ("T1611",), (6, 7, 8, 38, 40)),
    Detector("agent-tampered", "A resource of the agent was changed, and restored if possible",
             "critical", ("T1562.001",), ()),
    Detector("preemption-changed", "The kernel was switched to preempt itself, and may skip programs now",
             "high", ("T1562.001",), ()),
    Detector("limit-hit", "A container hit its limit of processes or memory", "medium",
             ("T1499",), (62,)),
    Detector("task-burst", "A container starts tasks in large numbers", "medium", ("T1499",), (62,)),
    Detector("sweep", "A container matched many different rules within seconds, as in a search for an escape",
             "high", ("T1613",), (63,)),
)  # fmt: skip

#: by id
DETECTORS: Mapping[str, Detector] = {one.id: one for one in _ALL}

_new_id = AlertIds("d")
_STOPPED = ("denied", "killed")  # outcomes of calls that did not return to their caller


class Finding(NamedTuple):
    """A finding of a detector. `container` None: it concerns the node."""

    id: str
    detector: Detector
    container: Container | None
    details: Mapping[str, Any]
    event: Event | None  # the last of the events on which it is based
    time_ns: int  # CLOCK_BOOTTIME
    exe: bytes = b""  # of the event's process, as far as it is known
    args: bytes = b""
    ancestry: tuple[Ancestor, ...] = ()

    @property
    def ended(self) -> str:
        """How the calls ended that the finding is about."""
        if "tried" not in self.details:
            return "reported; nothing was stopped by this finding"
        tried, stopped = self.details["tried"], self.details["stopped"]
        if stopped == tried:
            return f"each of {tried} calls was stopped; see the alerts of the rules"
        return f"{stopped} of {tried} calls were stopped; see the alerts of the rules"

    def traced(self, tree: ProcessTree) -> Finding:
        """Returns this finding with the program and the ancestry of its event's process."""
        if self.event is None:
            return self
        event, first = self.event, self.container.pid if self.container else 0
        known = tree.find(event.pid, event.start_ns)
        ancestry = tree.ancestry(event.pid, event.start_ns, ppid=event.ppid, first=first)
        exe, args = (known.exe, known.args) if known else (b"", b"")
        return self._replace(exe=exe, args=args, ancestry=tuple(ancestry))


def finding(
    detector: str, container: Container | None, details: Mapping[str, Any], event: Event | None = None
) -> Finding:
    """Returns a finding with the current time. `detector` is one of DETECTORS."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Finding(_new_id(), DETECTORS[detector], container, details, event, now)


class Sweep:
    """Counts the rules that each container matched recently, and its denied calls."""

    #: different rules, and denied calls, within WINDOW_NS
    RULES, REFUSED, WINDOW_NS = 6, 40, 10 * 10**9
    _CONTAINERS = 4096

    def __init__(self) -> None:
        self._rules: dict[int, dict[str, tuple[int, str]]] = {}  # container -> rule -> time, outcome
        self._refused: dict[int, tuple[int, int]] = {}

    def verdict(
        self, cgroup: int, rule: str, time_ns: int, outcome: str, *, refused: bool
    ) -> dict[str, Any] | None:
        """Counts one verdict; returns details if a threshold is reached, and restarts the count.

        `refused`: the kernel denied the call, or killed its task.
        """
        if len(self._rules) > self._CONTAINERS:
            self._rules.clear()
            self._refused.clear()
        matched = self._rules.setdefault(cgroup, {})
        matched[rule] = time_ns, outcome
        if len(matched) >= self.RULES:
            recent = {name: one for name, one in matched.items() if time_ns - one[0] <= self.WINDOW_NS}
            if len(recent) >= self.RULES:
                self.forget(cgroup)
                outcomes = {name: recent[name][1] for name in sorted(recent)}
                stopped = sum(one in _STOPPED for one in outcomes.values())
                return {"rules": sorted(recent), "outcomes": outcomes, "tried": len(outcomes),
                        "stopped": stopped, "seconds": self.WINDOW_NS // 10**9}  # fmt: skip
            self._rules[cgroup] = recent
        if refused:
            since, count = self._refused.get(cgroup, (time_ns, 0))
            since, count = (since, count + 1) if time_ns - since <= self.WINDOW_NS else (time_ns, 1)
            self._refused[cgroup] = since, count
            if count >= self.REFUSED:
                self.forget(cgroup)
                return {"refused": count, "tried": count, "stopped": count,
                        "seconds": self.WINDOW_NS // 10**9}  # fmt: skip
        return None

    def forget(self, cgroup: int) -> None:
        """Forgets a container that is gone, or was reported."""
        self._rules.pop(cgroup, None)
        self._refused.pop(cgroup, None)
