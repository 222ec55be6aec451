# SPDX-License-Identifier: Apache-2.0
"""One custom probe outside the agent, for `ringfence probe run`: its events as lines.

Without an agent nobody says which cgroups are containers but the names of cgroups; so these are asked.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from typing import Any

from ringfence.cli.events import compact
from ringfence.config import load
from ringfence.containers.hierarchy import detect, walk
from ringfence.containers.model import Container
from ringfence.containers.patterns import matches, patterns_for
from ringfence.export.probe_records import event_record
from ringfence.export.records import boot_offset_ns
from ringfence.probes.compiler import Workshop
from ringfence.probes.definition import Definition
from ringfence.probes.live import Live, ProbeEvent

__all__ = ["Watcher"]


class Watcher:
    """A probe that runs until `close`."""

    def __init__(self, probe: Definition, workshop: Workshop) -> None:
        self._probe = probe
        config = load()
        self._patterns = patterns_for(config.patterns, known=config.known_names)
        self._hierarchy = detect()
        self._known: dict[int, Container | None] = {}
        self._live = Live(probe, workshop.build(probe))
        self._live.begin()
        self._offset = boot_offset_ns()
        print(f"{probe.label} runs on {', '.join(self._live.hooks)}; Ctrl-C ends it", file=sys.stderr)

    def lines(self, most: int, *, as_json: bool) -> Iterator[str]:
        """What came since the last time."""
        for record in self._live.read(most):
            try:
                decoded = self._live.decoder.decode(record)
            except (ValueError, struct.error):
                self._live.failures["decode"] += 1
                continue
            container = self._container(decoded.container)
            if container is None and not self._probe.keep_host and self._probe.owner.how != "process":
                self._live.failures["host"] += 1
                continue
            told = event_record(ProbeEvent(self._probe, decoded), container, self._offset)
            yield json.dumps(told, ensure_ascii=False) if as_json else compact(told)

    def _container(self, cgroup: int) -> Container | None:
        if cgroup and cgroup not in self._known:
            paths = {found.cgroup_id: found.path for found in walk(self._hierarchy)}
            self._known = {known: self._named(known, path) for known, path in paths.items()}
            self._known.setdefault(cgroup, None)
        return self._known.get(cgroup)

    def _named(self, cgroup: int, path: str) -> Container | None:
        """The container that a cgroup is, or lies in."""
        parts = path.split("/")
        for end in range(len(parts), 1, -1):
            if matches(parts[end - 1], self._patterns):
                return Container.unnamed(cgroup, 0).at("/".join(parts[:end]))
        return None

    def close(self) -> None:
        """Detach, and say what was lost."""
        counts: dict[str, Any] = {**self._live.dropped}
        for reason, count in self._live.failures.items():
            counts[reason] = counts.get(reason, 0) + count
        left_out = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
        print(f"{self._live.emitted} events; left out: {left_out or 'none'}", file=sys.stderr)
        self._live.detach()
