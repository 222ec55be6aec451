# SPDX-License-Identifier: Apache-2.0
"""What one scrape of an agent with 500 running containers takes, each with series of its own."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.request

from tests.bench.record import Bar, Measurement, percentile, row
from tests.bench.setup import bench_agent
from tests.support.cgroups import hierarchies, new_cgroup
from tests.support.waiting import wait_for

CONTAINERS = 500
MOST_MS = 50.0
# Each forks, opens and connects: all its counters are series.
WORK = "for n in 1 2 3; do cat /etc/hosts /dev/null > /dev/null; done; exec sleep 600"


def measure(*, quick: bool) -> Measurement:
    """One after the other, over HTTP on the loopback, to the last byte."""
    count = 100 if quick else CONTAINERS
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(bench_agent(metrics_containers=str(count), canary="yes"))
        for _ in range(count):
            cgroup = stack.enter_context(new_cgroup("bench-scrape"))
            process = cgroup.popen(["/bin/sh", "-c", WORK], stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
        running = ("ringfence_containers", (("state", "running"),))
        wait_for(lambda: agent.metrics()[running] >= count, "the containers", seconds=60, every=1)
        samples, size = [], 0
        for _ in range(20 if quick else 60):
            began = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{agent.port}/metrics", timeout=10) as answer:
                size = len(answer.read())
            samples.append(1000 * (time.perf_counter() - began))
            time.sleep(0.1)
    taken = row(f"{count} containers", samples, "ms")
    middle = row("median", samples, "ms", best=False)
    return Measurement(
        "scrape",
        f"GET /metrics on the loopback, {size >> 10} KiB, {count} containers with series of their own",
        [taken, middle],
        [
            Bar("one scrape, median", middle.value, MOST_MS, "ms"),
            Bar("one scrape, best", taken.value, MOST_MS, "ms"),
        ],
        [f"p95 {percentile(samples, 95):.1f} ms; hierarchies: {', '.join(sorted(hierarchies()))}"],
    )
