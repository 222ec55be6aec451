# SPDX-License-Identifier: Apache-2.0
"""Where each figure of /metrics comes from: the parts of the agent, put together for one collector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.containers.hierarchy import mount_points
from ringfence.export.metrics import Sources
from ringfence.export.metrics_pressure import PressureMetrics

if TYPE_CHECKING:
    from ringfence.daemon.agent import Agent

__all__ = ["sources"]


def sources(agent: Agent) -> Sources:
    """For `new_registry`; nothing is read before somebody scrapes."""
    return Sources(
        stats=agent.stats,
        kernel=agent.kernel,
        containers=lambda: list(agent.registry),
        pressure=_pressure(),
        slots=agent.slots.read,
        life=agent.registry.counts,
        policies=lambda: agent.keeper.state,
        ready=agent.ready,
        program_stats=agent.config.program_stats,
        container_limit=agent.config.metrics_containers,
        mode=agent.config.mode,
        writers=[agent.writer],
        stream=agent.stream,
        extra=lambda: _counters(agent),
        outbox=agent.outbox,
        more=[lambda: agent.identity.metrics(agent.worker.counts.errors), agent.audit.metrics],
        redacted=lambda: agent.outlets.redactor.redacted,
        probes=agent.probes.metrics if agent.probes else tuple,
    )


def _counters(agent: Agent) -> list[tuple[str, str, float]]:
    tables: dict[str, Mapping[str, int]] = {
        "ringfence_enrichments": agent.members.enrichments,
        "ringfence_responses": agent.desk.responses,
        "ringfence_handshakes": agent.enroller.results,
        "ringfence_repairs": agent.healer.repairs,
        "ringfence_takeover_records": agent.takeover.counts,
    }
    return [(name, word, count) for name, table in tables.items() for word, count in list(table.items())]


def _pressure() -> PressureMetrics:
    v1, v2 = mount_points(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    return PressureMetrics(Path(v2) if v2 else None, Path(v1["cpu"]) if "cpu" in v1 else None)
