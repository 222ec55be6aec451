# SPDX-License-Identifier: Apache-2.0
"""How long the agent takes from its start until it is ready, and what of that is loading and attaching."""

from __future__ import annotations

from tests.bench.record import Bar, Measurement, Row, row
from tests.bench.setup import bench_agent

MOST_READY_S = 1.0
MOST_ATTACH_MS = 300.0


def measure(*, quick: bool) -> Measurement:
    """Starts in a row, with the default pack; what /metrics says of each."""
    phases: dict[str, list[float]] = {}
    seen = []
    for _ in range(3 if quick else 15):
        with bench_agent() as agent:
            seen.append(agent.ready_seconds * 1000)
            for (name, labels), value in agent.metrics().items():
                if name.startswith("ringfence_agent_startup_seconds"):
                    phase = dict(labels).get("phase", "all")
                    phases.setdefault(phase, []).append(value * 1000)
    rows = [row("process start -> /readyz answers", seen, "ms", best=False)]
    rows += [row(f"phase {phase}", samples, "ms", best=False) for phase, samples in phases.items()]
    return Measurement(
        "start",
        "wall clock, polled every 10 ms; phases as the agent's own metrics say; medians",
        rows,
        _bars(rows),
    )


def _bars(rows: list[Row]) -> list[Bar]:
    bars = [Bar("process start -> ready", rows[0].value / 1000, MOST_READY_S, "s")]
    attach = [one for one in rows if one.case == "phase attach"]
    return bars + [Bar("attach", one.value, MOST_ATTACH_MS, "ms") for one in attach]
