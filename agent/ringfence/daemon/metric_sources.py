# SPDX-License-Identifier: Apache-2.0
"""Where each figure of /metrics comes from: the parts of the agent, put together for one collector."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.containers.hierarchy import hierarchy_mounts
from ringfence.export.metrics import Sources
from ringfence.export.metrics_pressure import PressureMetrics
from ringfence.export.metrics_room import continuity_metrics, limit_metrics, room_metrics

if TYPE_CHECKING:
    from ringfence.daemon.agent import Agent

__all__ = ["sources"]

_DESCRIPTORS = 16_384  # four files each of as many containers as there may be by default


def sources(agent: Agent) -> Sources:
    """For `new_registry`; nothing is read before a scrape."""
    return Sources(
        stats=agent.stats,
        kernel=agent.kernel,
        containers=lambda: list(agent.registry),
        pressure=_pressure(),
        slots=agent.slots.read,
        life=agent.registry.counts,
        policies=lambda: agent.manager.state,
        ready=agent.ready,
        program_stats=agent.config.program_stats,
        container_limit=agent.config.metrics_containers,
        mode=agent.config.mode,
        writers=[agent.writer],
        stream=agent.stream,
        extra=lambda: _counters(agent),
        outbox=agent.outbox,
        more=[
            lambda: agent.pod_sources.metrics(agent.worker.counts.errors),
            agent.audit.metrics,
            lambda: room_metrics(_rooms(agent), _evicted(agent)),
            lambda: continuity_metrics(agent.continuity.pinned, dict(agent.takeover.lost)),
            lambda: limit_metrics(agent.limits),
        ],
        redacted=lambda: agent.outputs.redactor.redacted,
        probes=agent.probes.metrics if agent.probes else tuple,
    )


def _counters(agent: Agent) -> list[tuple[str, str, float]]:
    tables: dict[str, Mapping[str, int]] = {
        "ringfence_enrichments": agent.tracker.enrichments,
        "ringfence_responses": agent.pipeline.responses,
        "ringfence_handshakes": agent.enroll_socket.results,
        "ringfence_repairs": agent.resync.repairs,
        "ringfence_takeover_records": agent.takeover.counts,
        "ringfence_tampered": agent.defence.watchdog.counts,
    }
    return [(name, word, count) for name, table in tables.items() for word, count in list(table.items())]


def _rooms(agent: Agent) -> dict[str, tuple[int, int]]:
    return {
        "containers": (agent.slots.size - agent.slots.unused, agent.slots.size),
        "processes": agent.tree.room,
        "ended_processes": agent.tree.room_of_dead,
        "ended_containers": agent.registry.room,
        "questions": agent.worker.room,
        "lines": agent.writer.room,
        "stream": agent.stream.room,
        "rate_limits": agent.pipeline.limiter.room,
        "unnamed_alerts": agent.outputs.room,
        "handshakes": agent.enroll_socket.room,
        "guest_policies": agent.manager.room,
        "calls": agent.loop.room,
    }


def _evicted(agent: Agent) -> dict[str, int]:
    return {
        "processes": agent.tree.evicted,
        "ended_containers": agent.registry.counts.evicted,
        "containers": agent.slots.full,
    }


def _pressure() -> PressureMetrics:
    v1, v2 = hierarchy_mounts()
    cpu = Path(v1["cpu"]) if "cpu" in v1 else None
    return PressureMetrics(Path(v2) if v2 else None, cpu, files=_descriptors() // 2)


def _descriptors() -> int:
    """How many descriptors this process may have, after raising its soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if most > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return soft
