# SPDX-License-Identifier: Apache-2.0
"""From the system call to the alert's line in the reader's hands, on an idle machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.waiting import wait_for
from tools.bench.record import Bar, Measurement, Row, percentile
from tools.bench.setup import bench_agent, bench_container, numbers

MOST_P99_MS = 10.0
MARK, MARKS = 100_000, 250  # as in loops.c: many rules, because repetitions of one are held back
PAUSE_MS = 5

HEAD = """\
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: bench-marks}
spec:
  selector: {containers: all}
  mode: enforce
  rules:
"""
RULE = """\
    - {{id: mark-{0}, title: mark, severity: info, event: setuid, match: {{uid: {0}}}, action: alert}}
"""


def measure(*, quick: bool) -> Measurement:
    """Makes one call every few milliseconds; each matches a different rule."""
    count = 250 if quick else 2000
    with tempfile.TemporaryDirectory(prefix="rfbench-") as directory:
        policy = Path(directory) / "marks.yaml"
        policy.write_text(HEAD + "".join(RULE.format(MARK + number) for number in range(MARKS)))
        with bench_agent(policy) as agent, bench_container() as container:
            called = numbers(container.command(["/bin/loops", "marks", str(count), str(PAUSE_MS)]))
            wait_for(lambda: len(agent.alerts()) >= count, f"{count} alerts", seconds=10)
            lines: dict[str, list[int]] = {}
            for record, arrived in zip(agent.records, agent.arrived, strict=True):
                if record.get("kind") == "alert":
                    lines.setdefault(record["rule"]["id"], []).append(arrived)
    taken = []
    for number, at in enumerate(called):
        arrived = lines[f"mark-{MARK + number % MARKS}"].pop(0)
        taken.append((arrived - at) / 1e6)
    rows = [
        Row(name, value, "ms", min(taken), max(taken), [])
        for name, value in (
            ("p50", percentile(taken, 50)),
            ("p90", percentile(taken, 90)),
            ("p99", percentile(taken, 99)),
        )
    ]
    return Measurement(
        "latency",
        f"{count} calls {PAUSE_MS} ms apart; CLOCK_BOOTTIME before each, and when its line was read",
        [*rows, Row("all", rows[0].value, "ms", min(taken), max(taken), [round(one, 4) for one in taken])],
        [Bar("call -> alert line, p99", rows[2].value, MOST_P99_MS, "ms")],
    )
