# SPDX-License-Identifier: Apache-2.0
"""One container floods in every possible way; the others' alerts must arrive in time, losses be counted."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.escape.program import build
from tests.support.agent import Agent
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.waiting import wait_for
from tools.bench.memory_bench import cpu_seconds, resident_mb
from tools.bench.record import Bar, Measurement, Row, percentile
from tools.bench.setup import POLICIES, bench_agent

MOST_MS = 50.0
QUIET = 4  # containers whose alerts are watched
RULE = "block-device"
#: refused a raw disk's node again and again; says how often
ATTEMPTS = """
import os, stat, sys, time
path, times, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
refused = 0
for _ in range(times):
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(259, 1048575))
    except PermissionError:
        refused += 1
    time.sleep(pause)
print(refused)
"""
FORKS = "while :; do /bin/true & wait $!; done"
OPENS = "import os\nwhile True: os.close(os.open('/proc/self/stat', os.O_RDONLY))"


@dataclass
class Phase:
    """One kind of flood, and what the others saw meanwhile."""

    name: str
    delays: list[float] = field(default_factory=list)  # ms
    refused: int = 0
    reported: int = 0


def measure(*, quick: bool) -> Measurement:
    """quick: a fifth of the attempts, and of the cgroups."""
    attempts = 50 if quick else 250  # of each quiet container, in each phase
    children = 5_000 if quick else 50_000
    # As many lines as the quiet ones have alerts; the loud one is held to as many.
    flags = {
        "containers-adopt": "yes", "alerts-rate": "7200", "alerts-burst": "300", "alerts-repeat": "0",
        "canary": "yes",
    }  # fmt: skip
    with bench_agent(POLICIES, **flags) as agent, new_cgroup("bench-loud") as loud:
        began = time.monotonic()
        phases = [
            _phase(agent, "alerts", attempts, _storm(loud, attempts)),
            _phase(agent, "fork bomb", attempts, _runs(loud, ["/bin/sh", "-c", FORKS], most=200)),
            _phase(agent, "opens", attempts, _runs(loud, [sys.executable, "-c", OPENS])),
            _phase(agent, f"{children} cgroups", attempts, _cgroups(loud, children)),
        ]
        seconds = time.monotonic() - began
        storm = _refusals(agent, loud)
        missing = _unaccounted(agent)
        cpu, resident = cpu_seconds(agent.pid), resident_mb(agent.pid)
    return Measurement(
        "flood",
        f"{QUIET} containers are refused a device every 10 ms, {attempts} times each, while another floods:"
        " with refused connects (3 processes), forks, opens, and cgroups; adoption on",
        [
            *(_delay_row(phase, share) for share in (50, 99) for phase in phases),
            Row("refusals of the storm, a second", storm, "/s", storm, storm, []),
            Row("CPU time of the agent", cpu, "s", cpu, cpu, []),
            Row("all of it took", seconds, "s", seconds, seconds, []),
            Row("resident at the end", resident, "MB", resident, resident, []),
        ],
        [
            *(
                Bar(f"{p.name}: p99 of call to alert", percentile(p.delays, 99), MOST_MS, "ms")
                for p in phases
            ),
            Bar("samples", sum(len(p.delays) for p in phases), 200 if quick else 1000, "", least=True),
            Bar("missing alerts of the others", sum(p.refused - p.reported for p in phases), 0, ""),
            Bar("records that are neither received nor counted", missing, 0, ""),
        ],
    )


def _delay_row(phase: Phase, share: int) -> Row:
    """The delays of a phase at one percentile, ms."""
    value = percentile(phase.delays, share)
    return Row(f"{phase.name}: p{share}", value, "ms", min(phase.delays), max(phase.delays), [])


def _phase(agent: Agent, name: str, attempts: int, flood: contextlib.AbstractContextManager[object]) -> Phase:
    phase = Phase(name)
    with contextlib.ExitStack() as stack:
        quiet = [stack.enter_context(new_cgroup(f"bench-q{number}")) for number in range(QUIET)]
        with flood:
            argv = [sys.executable, "-c", ATTEMPTS, "/tmp/rf-bench-node", str(attempts), "0.01"]
            running = [cgroup.popen(argv, stdout=subprocess.PIPE, text=True) for cgroup in quiet]
            phase.refused = sum(int(process.communicate()[0]) for process in running)
        names = {cgroup.name for cgroup in quiet}

        def arrived() -> list[float]:
            return [
                alert["latency_us"] / 1000
                for alert in agent.alerts(rule=RULE)
                if alert["container"]["id"] in names
            ]

        with contextlib.suppress(AssertionError):  # it is a figure, and not the end
            wait_for(lambda: len(arrived()) >= phase.refused, "every alert", seconds=20)
        phase.delays = arrived()
        phase.reported = len(phase.delays)
    return phase


@contextlib.contextmanager
def _runs(cgroup: Cgroup, argv: list[str], most: int = 0) -> Iterator[None]:
    limit = cgroup.paths.get("pids", cgroup.path) / "pids.max"
    if most and limit.exists():
        limit.write_text(str(most))
    processes = [cgroup.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
        if most and limit.exists():
            limit.write_text("max")


@contextlib.contextmanager
def _storm(cgroup: Cgroup, attempts: int) -> Iterator[None]:
    """As long as the quiet ones take, and a little more."""
    argv = [str(build()), "storm", str(attempts * 25), "127.0.0.1", "2375"]
    processes = [cgroup.popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    began = time.monotonic()
    try:
        yield
    finally:
        times = sum(int(process.communicate()[0].split()[-1]) for process in processes)
        _STORMS[cgroup.name] = times / (time.monotonic() - began)


_STORMS: dict[str, float] = {}


def _refusals(agent: Agent, cgroup: Cgroup) -> float:
    return _STORMS[cgroup.name]


@contextlib.contextmanager
def _cgroups(cgroup: Cgroup, count: int) -> Iterator[None]:
    """Made and removed by somebody else's hand, all the while."""
    script = (
        "import os, sys\nbase, count = sys.argv[1], int(sys.argv[2])\n"
        "for n in range(count): os.mkdir(f'{base}/c{n}')\n"
        "print('made', flush=True)\nsys.stdin.read()\n"
        "for n in range(count): os.rmdir(f'{base}/c{n}')\n"
    )
    maker = subprocess.Popen(
        [sys.executable, "-c", script, str(cgroup.path), str(count)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield
    finally:
        maker.communicate()


def _unaccounted(agent: Agent) -> float:
    """Of all kinds: emitted, less received. Nothing waits in a ring when it is asked."""

    def missing() -> Counter[str]:
        found: Counter[str] = Counter()
        for (name, labels), value in agent.metrics().items():
            sign = {"ringfence_events_emitted_total": 1, "ringfence_events_total": -1}.get(name, 0)
            if sign:
                found[dict(labels)["event"]] += sign * int(value)
        return Counter({kind: count for kind, count in found.items() if count})

    with contextlib.suppress(AssertionError):
        wait_for(lambda: not missing(), "the rings to be empty", seconds=20)
    return float(sum(abs(count) for count in missing().values()))
