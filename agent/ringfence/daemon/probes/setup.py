# SPDX-License-Identifier: Apache-2.0
"""Puts the parts of custom probes together. Imported only where `probes.directory` is set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.hierarchy import Hierarchy
from ringfence.containers.registry import Registry
from ringfence.containers.slots import SlotTable
from ringfence.containers.tree import ProcessTree
from ringfence.daemon.delivery.outputs import limiter_of
from ringfence.daemon.loop import Loop
from ringfence.daemon.probes.events import HOST, Emit, ProbePipeline
from ringfence.daemon.probes.manager import ProbeManager, ProbeState
from ringfence.export.metrics_probes import ProbeRow, probe_metrics
from ringfence.export.stats import Stats
from ringfence.export.stream import StreamServer
from ringfence.policy.install import Generations
from ringfence.probes.compiler import Workshop
from ringfence.probes.tally import OTHER

__all__ = ["CustomProbes", "workshop"]

_SHARED = ("processes", "containers", "slots")  # the kernel's maps from which probes learn a task's container
_TICK = 5.0


def workshop(config: Config, hierarchy: Hierarchy, maps: Mapping[str, int] | None = None) -> Workshop:
    """Where probes are compiled, as configured."""
    return Workshop(
        config.workshop_dir,
        hierarchy.controller,
        maps,
        config.probes_headers,
        config.probes_memory,
        config.probes_timeout,
    )


class CustomProbes:
    """The manager, its pipeline and their metrics."""

    def __init__(
        self,
        config: Config,
        directory: Path,
        kernel: Kernel,
        hierarchy: Hierarchy,
        loop: Loop,
        registry: Registry,
        slots: SlotTable,
        tree: ProcessTree,
        generations: Generations,
        stats: Stats,
        responses: Counter[str],
        emit: Emit,
        line: Callable[[Mapping[str, Any]], object],
        redact: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        stream: StreamServer,
        reload_policies: Callable[[str], None],
    ) -> None:
        self._registry = registry
        mode = "" if config.mode == "policy" else config.mode
        self.pipeline = ProbePipeline(
            registry, slots, tree, kernel.map("processes"), generations, stats, responses, emit, line, redact,
            stream, mode, limiter_of(config), node=config.node_name,
        )  # fmt: skip
        maps = {name: kernel.map(name).fd for name in _SHARED}
        self.manager = ProbeManager(
            directory,
            workshop(config, hierarchy, maps),
            loop,
            self.pipeline,
            lambda: reload_policies("probes changed"),
        )
        loop.every(_TICK, self.pipeline.tick)

    def finish(self) -> None:
        """Report what is pending, at the end. In the loop's thread."""
        self.manager.drain()
        self.pipeline.tick(last=True)

    def metrics(self) -> Iterable[Metric]:
        """For one scrape."""
        alive = {container.short_id for container in self._registry} | {HOST, OTHER}
        return probe_metrics(self._rows(), self.manager.loads, alive)

    def _rows(self) -> Iterator[ProbeRow]:
        for state in sorted(self.manager.states.values(), key=lambda one: one.name):
            yield _row(state)


def _row(state: ProbeState) -> ProbeRow:
    live = state.live
    if live is None:
        return ProbeRow(state.name, running=False)
    dropped = {**live.dropped, **live.failures}
    return ProbeRow(state.name, True, live.seconds, live.emitted, live.received, dropped, live.tally)
