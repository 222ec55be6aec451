# SPDX-License-Identifier: Apache-2.0
"""The agent's resident memory beside 50 containers that do something, over ten minutes."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from tests.support.container import new_container
from tools.bench.record import Bar, Measurement, Row
from tools.bench.setup import bench_agent, bundle

MOST_MB = 55.0
MOST_GROWTH_MB = 2.0  # "flat": between the first third and the last sample
CONTAINERS = 50
# Each runs a few programs a second, opens files, and now and then does what a rule looks at.
WORK = (
    "while :; do cat /etc/hosts /etc/passwd >/dev/null; ls -R /etc >/dev/null; unshare -m true; sleep 2; done"
)


def measure(*, quick: bool) -> Measurement:
    """Sampled all the time; quick: 40 seconds and 10 containers."""
    seconds, count = (40, 10) if quick else (600, CONTAINERS)
    samples: list[float] = []
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(bundle())
        made.config["process"]["args"] = ["/bin/sh", "-c", WORK]
        agent = stack.enter_context(bench_agent())
        for _ in range(count):
            stack.enter_context(new_container(made, "mem"))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            samples.append(resident_mb(agent.pid))
            time.sleep(2)
        cpu = cpu_seconds(agent.pid)
    third = samples[: max(1, len(samples) // 3)]
    growth = samples[-1] - max(third)
    return Measurement(
        "memory",
        f"VmRSS every 2 s for {seconds} s, {count} runc containers, each running a few programs every 2 s",
        [
            Row("resident at the end", samples[-1], "MB", min(samples), max(samples), samples),
            Row("growth after the first third", growth, "MB", growth, growth, []),
            Row("CPU time of the agent", cpu, "s", cpu, cpu, []),
        ],
        [
            Bar("resident memory at the end", samples[-1], MOST_MB, "MB"),
            Bar("growth after the first third", growth, MOST_GROWTH_MB, "MB"),
        ],
    )


def resident_mb(pid: int) -> float:
    """VmRSS of a process, in 1,000,000 bytes; the kernel's kB are of 1,024."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024 / 1e6


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
