# SPDX-License-Identifier: Apache-2.0
"""Puts the parts of custom probes together. Imported only if `probes.directory` is set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import Metric

from ringfence.config import Config
from ringfence.containers.hierarchy import Hierarchy
from ringfence.daemon.delivery.outputs import Outputs, limiter_of
from ringfence.daemon.loop import Loop
from ringfence.daemon.parts import Loaded, Node, Picture
from ringfence.daemon.probes.events import HOST, ProbePipeline
from ringfence.daemon.probes.manager import ProbeManager, ProbeState
from ringfence.export.probe_metrics import ProbeRow, probe_metrics
from ringfence.probes.compiler import Workshop
from ringfence.probes.tally import OTHER

__all__ = ["CustomProbes", "workshop"]

_SHARED = ("processes", "containers", "slots")  # kernel maps in which probes find a task's container
_TICK = 5.0


def workshop(config: Config, hierarchy: Hierarchy, maps: Mapping[str, int] | None = None) -> Workshop:
    """The place where probes are compiled, as configured."""
    return Workshop(
        config.workshop_dir,
        hierarchy.controller,
        maps,
        config.probes_headers,
        config.probes_memory,
        config.probes_timeout,
    )


class CustomProbes:
    """The manager of the probes, the pipeline of their events, and their metrics."""

    def __init__(
        self,
        node: Node,
        directory: Path,
        loaded: Loaded,
        picture: Picture,
        outputs: Outputs,
        loop: Loop,
        reload_policies: Callable[[str], None],
    ) -> None:
        config, self._registry = node.config, picture.registry
        mode = "" if config.mode == "policy" else config.mode
        self._pipeline = ProbePipeline(loaded, picture, outputs, limiter_of(config), mode)
        maps = {name: loaded.kernel.map(name).fd for name in _SHARED}
        self.manager = ProbeManager(
            directory,
            workshop(config, node.hierarchy, maps),
            loop,
            self._pipeline,
            lambda: reload_policies("probes changed"),
        )
        loop.every(_TICK, self._pipeline.tick)

    def finish(self) -> None:
        """Report what is pending, at the end. In the loop's thread."""
        self.manager.drain()
        self._pipeline.tick(last=True)

    def samples(self) -> Iterable[Metric]:
        """Each probe, and the metrics that its YAML derives from its events."""
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
