# SPDX-License-Identifier: Apache-2.0
"""How long the agent takes from its start until it is ready, and what of that is loading and attaching."""

from __future__ import annotations

from tools.bench.record import Bar, Measurement, Row, row
from tools.bench.setup import bench_agent

MOST_READY_S = 1.0
MOST_ATTACH_MS = 300.0
ATTACHING = "attaching the programs"
PHASES = {
    "process start -> ready, as the agent says": "ringfence_startup_seconds",
    ATTACHING: "ringfence_attach_seconds",
}


def measure(*, quick: bool) -> Measurement:
    """Starts in a row, with the default pack; what /metrics says of each."""
    phases: dict[str, list[float]] = {name: [] for name in PHASES}
    seen = []
    for _ in range(3 if quick else 15):
        with bench_agent() as agent:
            seen.append(agent.ready_seconds * 1000)
            samples = agent.metrics()
            for phase, name in PHASES.items():
                phases[phase].append(samples[name, ()] * 1000)
    rows = [row("process start -> /readyz answers", seen, "ms", best=False)]
    rows += [row(phase, samples, "ms", best=False) for phase, samples in phases.items()]
    return Measurement(
        "start",
        "wall clock, polled every 10 ms; phases as the agent's own metrics say; medians",
        rows,
        _bars(rows),
    )


def _bars(rows: list[Row]) -> list[Bar]:
    bars = [Bar("process start -> ready", rows[0].value / 1000, MOST_READY_S, "s")]
    return [*bars, Bar(ATTACHING, rows[-1].value, MOST_ATTACH_MS, "ms")]
