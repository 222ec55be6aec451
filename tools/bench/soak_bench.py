# SPDX-License-Identifier: Apache-2.0
"""10,000 short containers: each must be identified correctly, and the agent must not grow."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.support.agent import Agent
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.waiting import wait_for
from tools.bench.memory_bench import cpu_seconds, resident_mb
from tools.bench.record import Bar, Measurement, Row
from tools.bench.setup import HERE, ROOT, bench_agent

MOST_GROWTH_MB = 3.0
RULE = "docker-tcp"
NAME = f"{PREFIX}bench-soak-"
AT_ONCE = 8


def measure(*, quick: bool) -> Measurement:
    """The first tenth warms up: the tables of the dead are full after it. quick: 1,000 containers."""
    count = 1_000 if quick else 10_000
    with bench_agent() as agent:
        _run(agent, count // 10, first=True)
        warm, descriptors, tables = resident_mb(agent.pid), _descriptors(agent), _tables(agent)
        alerts_before, began = len(agent.alerts(rule=RULE)), time.monotonic()
        refused = _run(agent, count)
        seconds = time.monotonic() - began
        wait_for(lambda: len(agent.alerts(rule=RULE)) - alerts_before >= refused, "every alert", seconds=30)
        alerts = agent.alerts(rule=RULE)[alerts_before:]
        wrong = sum(alert["container"]["id"] != NAME + alert["process"]["comm"] for alert in alerts)
        time.sleep(40)  # tombstones are kept for 30 s
        after, cpu = resident_mb(agent.pid), cpu_seconds(agent.pid)
        left = _descriptors(agent) - descriptors
        entries = sum((_tables(agent) - tables).values())
        cgroups = sum(1 for _ in Cgroup(f"{PREFIX}bench").path.parent.glob(f"{NAME}*"))
        live = agent.metrics()["ringfence_containers", (("state", "running"),)]
    grown = after - warm
    return Measurement(
        "soak",
        f"{count} cgroups, in each a process that execs, is refused a connect and lives 50 ms, {AT_ONCE} at"
        f" a time in {seconds:.0f} s; VmRSS after {count // 10} to warm up and 40 s after the last",
        [
            Row("resident after the warm-up", warm, "MB", warm, warm, []),
            Row("resident at the end", after, "MB", after, after, []),
            Row("containers refused", refused, "", refused, refused, []),
            Row("CPU time of the agent", cpu, "s", cpu, cpu, []),
        ],
        [
            Bar("growth of resident memory", grown, MOST_GROWTH_MB, "MB"),
            Bar("alerts of the wrong container", wrong, 0, ""),
            Bar("containers without an alert", count - len(alerts), 0, ""),
            Bar("descriptors left over", left, 0, ""),
            Bar("slots and entries of the kernel's tables left over", entries, 0, ""),
            Bar("cgroups left over", cgroups, 0, ""),
            Bar("containers left over", live, 0, ""),
        ],
    )


def _run(agent: Agent, count: int, *, first: bool = False) -> int:
    """Start them; how many were refused."""
    parent = Cgroup(f"{PREFIX}bench").path.parent
    prefix = f"{PREFIX}bench-warm-" if first else NAME
    argv = [str(_program()), str(parent), prefix, str(count), str(AT_ONCE)]
    return int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def _program() -> Path:
    program, source = ROOT / "tests/escape/build/soak", HERE / "soak.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", "-static", "-o", str(program), str(source)], check=True)
    return program


def _tables(agent: Agent) -> Counter[str]:
    """What is in use of the kernel's tables: slots, containers, processes."""
    found: Counter[str] = Counter()
    for (name, labels), value in agent.metrics().items():
        if name == "ringfence_map_entries" and dict(labels)["map"] != "drops":
            found[dict(labels)["map"]] = int(value)
        if name == "ringfence_capacity_used" and ("of", "containers") in labels:
            found["slots"] = int(value)
    return found


def _descriptors(agent: Agent) -> int:
    return sum(1 for _ in Path(f"/proc/{agent.pid}/fd").iterdir())
