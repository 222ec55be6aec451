# SPDX-License-Identifier: Apache-2.0
"""What a process of the host pays for each system call while the agent enforces."""

from __future__ import annotations

import contextlib

from tools.bench.record import Bar, Measurement, Row, row
from tools.bench.setup import bench_agent, loops, numbers

MOST_NS = 40.0
MOST_SHARE = 0.20


def measure(*, quick: bool) -> Measurement:
    """getppid and open+close on the host: bare, with the agent, and with it but without 32-bit calls."""
    rounds, batches = (3, 5) if quick else (6, 15)
    cases = {"no agent": None, "agent": {}, "agent, syscalls.compat off": {"syscalls_compat": "off"}}
    calls: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for case, flags in cases.items():
            with contextlib.nullcontext() if flags is None else bench_agent(**flags):
                for call, count in (("getppid", 200_000), ("open+close", 50_000)):
                    samples = numbers([str(loops()), call, str(batches), str(count), "/etc/hostname"])
                    calls.setdefault((call, case), []).extend(samples)
    rows = [row(f"{call}, {case}", samples, "ns") for (call, case), samples in calls.items()]
    return Measurement(
        "host",
        f"loops.c pinned to one CPU, {rounds} interleaved rounds of {batches} batches, minima",
        rows,
        [_bar(rows)],
    )


def _bar(rows: list[Row]) -> Bar:
    values = {one.case: one.value for one in rows}
    bare = values["getppid, no agent"]
    limit = max(MOST_NS, MOST_SHARE * bare)
    return Bar(
        "a host process's system call, more than without the agent",
        values["getppid, agent"] - bare,
        limit,
        "ns",
    )
