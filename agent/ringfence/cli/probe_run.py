# SPDX-License-Identifier: Apache-2.0
"""Runs one custom probe without an agent, for `ringfence probe run`, and formats its events as lines.

Without an agent, containers are recognised only by the names of their cgroups.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from typing import Any

from ringfence.cli.events import shown
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
        print(f"{probe.label} is attached to {', '.join(self._live.hooks)}; Ctrl-C to stop", file=sys.stderr)

    def lines(self, most: int, options: Any) -> Iterator[str]:
        """Yields the events since the last call, one line each."""
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
            event = event_record(ProbeEvent(self._probe, decoded), container, self._offset)
            yield shown(event, options)

    def _container(self, cgroup: int) -> Container | None:
        if cgroup and cgroup not in self._known:
            paths = {found.cgroup_id: found.path for found in walk(self._hierarchy)}
            self._known = {known: self._named(known, path) for known, path in paths.items()}
            self._known.setdefault(cgroup, None)
        return self._known.get(cgroup)

    def _named(self, cgroup: int, path: str) -> Container | None:
        """Returns the container that a cgroup is or belongs to, or None."""
        parts = path.split("/")
        for end in range(len(parts), 1, -1):
            if matches(parts[end - 1], self._patterns):
                return Container.unnamed(cgroup, 0).at("/".join(parts[:end]))
        return None

    def close(self) -> None:
        """Detaches the probe and prints how many events were lost."""
        counts: dict[str, Any] = {**self._live.dropped}
        for reason, count in self._live.failures.items():
            counts[reason] = counts.get(reason, 0) + count
        omitted = ", ".join(f"{reason} {count}" for reason, count in counts.items() if count)
        print(f"{self._live.emitted} events; omitted: {omitted or 'none'}", file=sys.stderr)
        self._live.detach()
