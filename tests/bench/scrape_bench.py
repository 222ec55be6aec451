# SPDX-License-Identifier: Apache-2.0
"""What one scrape of an agent with 500 running containers takes: by default, where 200 of them have series of
their own and the others are summed, and with series for each."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.bench.record import Bar, Measurement, Row, row
from tests.bench.setup import bench_agent
from tests.support.agent import Agent
from tests.support.cgroups import new_cgroup
from tests.support.waiting import wait_for

CONTAINERS = 500
DEFAULT = 200  # metrics.containers
MOST_MS = 50.0
# Each forks, opens and connects: all its counters are series.
WORK = "for n in 1 2 3; do cat /etc/hosts /dev/null > /dev/null; done; exec sleep 600"


def measure(*, quick: bool) -> Measurement:
    """Two agents watch the same containers; their scrapes take turns, over HTTP, to the last byte."""
    count, rounds = (100, 10) if quick else (CONTAINERS, 40)
    with contextlib.ExitStack() as stack:
        agents = {
            limit: stack.enter_context(bench_agent(metrics_containers=str(limit), canary="yes"))
            for limit in (DEFAULT, CONTAINERS)
        }
        for _ in range(count):
            cgroup = stack.enter_context(new_cgroup("bench-scrape"))
            process = cgroup.popen(["/bin/sh", "-c", WORK], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        running = ("ringfence_containers", (("state", "running"),))
        for agent in agents.values():
            wait_for(lambda agent=agent: agent.metrics()[running] >= count, "them", seconds=60, every=1)  # type: ignore[misc]
        taken: dict[int, list[float]] = {limit: [] for limit in agents}
        before = {limit: _cpu_ms(agent) for limit, agent in agents.items()}
        for _ in range(rounds):
            for limit, agent in agents.items():
                taken[limit].append(_scrape_ms(agent))
        spent = {limit: (_cpu_ms(agent) - before[limit]) / rounds for limit, agent in agents.items()}
    rows = []
    for limit, samples in taken.items():
        name = f"{count} containers, {min(limit, count)} with series"
        rows += [
            row(name, samples, "ms"),
            Row(f"{name}: CPU", spent[limit], "ms", spent[limit], spent[limit], []),
        ]
    return Measurement(
        "scrape", "GET /metrics on the loopback; minima; CPU time of the whole agent a scrape", rows,
        [Bar("one scrape by default, best", rows[0].value, MOST_MS, "ms"),
         Bar("one scrape by default, CPU", rows[1].value, MOST_MS, "ms")],
    )  # fmt: skip


def _scrape_ms(agent: Agent) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{agent.port}/metrics", timeout=30) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - began)


def _cpu_ms(agent: Agent) -> float:
    """CPU time of its process so far, all threads, to a clock tick."""
    fields = Path(f"/proc/{agent.pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
