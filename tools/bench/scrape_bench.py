# SPDX-License-Identifier: Apache-2.0
"""What one scrape of an agent with 500 running containers takes: with series for each of them, which is what
the bars are about, and by default, where 200 have series of their own and the others are summed."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

from tests.support.agent import Agent
from tests.support.cgroups import new_cgroup
from tests.support.waiting import wait_for
from tools.bench.record import Bar, Measurement, row
from tools.bench.setup import bench_agent

CONTAINERS = 500
DEFAULT = 200  # metrics.containers
MOST_MS = 50.0
FRESH_S = 1.1
# Each forks, opens and connects: all its counters are series.
WORK = "for n in 1 2 3; do cat /etc/hosts /dev/null > /dev/null; done; exec sleep 600"


def measure(*, quick: bool) -> Measurement:
    """Two agents watch the same containers; their scrapes take turns, over HTTP, to the last byte.

    An agent answers all requests within a second with the same text: so each rests before it is scraped.
    """
    count, rounds = (100, 10) if quick else (CONTAINERS, 40)
    with contextlib.ExitStack() as stack:
        agents = {
            limit: stack.enter_context(bench_agent(metrics_containers=str(limit), canary="yes"))
            for limit in (CONTAINERS, DEFAULT)
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
        spent: dict[int, list[float]] = {limit: [] for limit in agents}
        for _ in range(rounds):
            time.sleep(FRESH_S)
            for limit, agent in agents.items():
                before = _cpu_ms(agent)
                taken[limit].append(_scrape_ms(agent))
                spent[limit].append(_cpu_ms(agent) - before)
    rows = []
    for limit in agents:
        name = f"{count} containers, {min(limit, count)} with series"
        rows.append(row(name, taken[limit], "ms"))
        rows.append(row(f"{name}: CPU", spent[limit], "ms"))
    return Measurement(
        "scrape",
        "GET /metrics on the loopback, none from the cache; the best, and the CPU time of the agent",
        rows,
        [Bar(f"one scrape, series for all {count}, at best", rows[0].value, MOST_MS, "ms")],
        [f"medians: {', '.join(f'{one.case}: {statistics.median(one.samples):.1f} ms' for one in rows)}",
         f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs: waiting for one counts"],
    )  # fmt: skip


def _scrape_ms(agent: Agent) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{agent.port}/metrics", timeout=30) as answer:
        answer.read()
    return 1000 * (time.perf_counter() - began)


def _cpu_ms(agent: Agent) -> float:
    """CPU time of its process so far, all threads (schedstat's first word, in nanoseconds)."""
    total = 0
    for path in Path(f"/proc/{agent.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((path / "schedstat").read_text().split()[0])
    return total / 1e6
