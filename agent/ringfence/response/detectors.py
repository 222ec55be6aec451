# SPDX-License-Identifier: Apache-2.0
"""Detectors: what no rule on a single call can see. Facts of a bundle, limits that are hit, many rules within
seconds.

Detectors only report; they stop nothing. Their names appear in alerts, metrics and `detectors.off` like those
of rules. Nothing here reads a file or asks the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from ringfence.containers.model import Container
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
    Detector("spec-loader", "An image sets the loader's variables for hooks of the host", "high",
             ("T1574.006", "T1611"), (43,)),
    Detector("spec-text", "A container's configuration holds a path that climbs, or text that is a command",
             "high", ("T1611", "T1610"), (41,)),
    Detector("host-root", "A container has the root of the host mounted", "medium", ("T1611",), (14, 44, 45)),
    Detector("helper-changed", "The program that the kernel runs on the host was changed", "critical",
             ("T1611",), (6, 7, 8, 38, 40)),
    Detector("agent-tampered", "Something that the agent lives by was changed, and put right where it can be",
             "critical", ("T1562.001",), ()),
    Detector("limit-hit", "A container runs into its limit of processes or memory", "medium",
             ("T1499",), (62,)),
    Detector("task-burst", "A container's tasks multiply", "medium", ("T1499",), (62,)),
    Detector("sweep", "A container meets many different rules in a few seconds, as who looks for a way out",
             "high", ("T1613",), (63,)),
)  # fmt: skip

#: by id
DETECTORS: Mapping[str, Detector] = {one.id: one for one in _ALL}

_new_id = AlertIds("d")


class Finding(NamedTuple):
    """What a detector found. `container` None: it is about the node."""

    id: str
    detector: Detector
    container: Container | None
    details: Mapping[str, Any]
    event: Event | None  # the last of the events that it rests on
    time_ns: int  # CLOCK_BOOTTIME


def finding(
    detector: str, container: Container | None, details: Mapping[str, Any], event: Event | None = None
) -> Finding:
    """A finding of now. `detector` is one of DETECTORS."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Finding(_new_id(), DETECTORS[detector], container, details, event, now)


class Sweep:
    """Counts the rules that each container met lately, and the calls that were refused."""

    #: different rules, and refused calls, within WINDOW_NS
    RULES, REFUSED, WINDOW_NS = 6, 40, 10 * 10**9
    _CONTAINERS = 4096

    def __init__(self) -> None:
        self._rules: dict[int, dict[str, int]] = {}
        self._refused: dict[int, tuple[int, int]] = {}

    def verdict(self, cgroup: int, rule: str, time_ns: int, *, refused: bool) -> dict[str, Any] | None:
        """Take one verdict; the details where a threshold is reached, after which it counts anew."""
        if len(self._rules) > self._CONTAINERS:
            self._rules.clear()
            self._refused.clear()
        met = self._rules.setdefault(cgroup, {})
        met[rule] = time_ns
        if len(met) >= self.RULES:
            recent = {name: at for name, at in met.items() if time_ns - at <= self.WINDOW_NS}
            if len(recent) >= self.RULES:
                self.forget(cgroup)
                return {"rules": sorted(recent), "seconds": self.WINDOW_NS // 10**9}
            self._rules[cgroup] = recent
        if refused:
            since, count = self._refused.get(cgroup, (time_ns, 0))
            since, count = (since, count + 1) if time_ns - since <= self.WINDOW_NS else (time_ns, 1)
            self._refused[cgroup] = since, count
            if count >= self.REFUSED:
                self.forget(cgroup)
                return {"refused": count, "seconds": self.WINDOW_NS // 10**9}
        return None

    def forget(self, cgroup: int) -> None:
        """A container is gone, or was told of."""
        self._rules.pop(cgroup, None)
        self._refused.pop(cgroup, None)
