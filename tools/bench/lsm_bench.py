# SPDX-License-Identifier: Apache-2.0
"""What a run of an LSM program costs as rules grow, by the kernel's own statistics of BPF programs.

To be run where BPF-LSM is, which is mostly a virtual machine:
`python -m tools.vm run -k 6.12 -s tools/bench/results -- python3 -m tools.bench lsm`.
Emulated nanoseconds are good for ratios only.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ringfence.abi import EventKind
from tests.kernel.probes import LABEL, Probes, running
from tests.kernel.rules import Rule, name_hash
from tests.support.cgroups import Cgroup, new_cgroup
from tools.bench.record import Bar, Measurement, Row, row

COUNTS = (1, 8, 64, 512)
MOST_PERCENT = 25.0
K = EventKind
ACT = Path(__file__).resolve().parents[1] / "kernel" / "fixtures" / "act.c"
NEWUTS = 0x04000000
#: program -> what act.c does to have it run, the event that the rules are on, and the operand that they test
CASES: Mapping[str, tuple[str, EventKind, int]] = {
    "lsm_file_open": ("open:/proc/uptime:0", K.FILE_OPEN, 3),
    "lsm_socket_create": ("socket:1:1:0", K.SYS_SOCKET, 0),
    "lsm_task_fix_setuid": ("setuid:0", K.SYS_SETUID, 0),
    "lsm_capable": (f"unshare:{NEWUTS}", K.SYS_UNSHARE, 0),
    "lsm_bpf": ("sys:321:1:0:0", K.SYS_BPF, 0),
    "lsm_ptrace_access_check": ("ptrace:1", K.SYS_PTRACE, 0),
}


def _rules(count: int) -> list[Rule]:
    """`count` rules on each event; none of them holds for what act.c does."""
    return [
        Rule(kind, "deny", {dim: {name_hash(b"x%d" % n) if kind is K.FILE_OPEN else 1_000_000 + n}})
        for _, kind, dim in CASES.values()
        for n in range(count)
    ]


@contextmanager
def _act() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        program = f"{directory}/act"
        subprocess.run(["gcc", "-O1", "-o", program, str(ACT), "-lpthread"], check=True)
        yield program


def _stats(probes: Probes) -> dict[str, tuple[int, int]]:
    return {stat.name: (stat.run_count, stat.run_time_ns) for stat in probes.kernel.program_stats()}


def _round(probes: Probes, cgroup: Cgroup, act: str, times: int) -> dict[str, float]:
    """Nanoseconds a run of each program, while act.c makes its call."""
    found = {}
    for program, (command, _, _) in CASES.items():
        before = _stats(probes)[program]
        cgroup.run([act, *[command] * times], stdout=subprocess.DEVNULL)
        count, spent = (now - was for now, was in zip(_stats(probes)[program], before, strict=True))
        found[program] = spent / max(count, 1)
    return found


def measure(*, quick: bool = False) -> Measurement:
    """Interleaved rounds; the least of each."""
    rounds, times = (2, 50) if quick else (3, 100)
    samples: dict[tuple[str, int], list[float]] = {}
    with _act() as act, running(lsm=True) as probes, new_cgroup(LABEL) as cgroup:
        probes.kernel.keep_statistics(on=True)
        for _ in range(rounds):
            for count in COUNTS:
                probes.enforce(*_rules(count))
                for program, nanoseconds in _round(probes, cgroup, act, times).items():
                    samples.setdefault((program, count), []).append(nanoseconds)
    rows = [
        row(f"{program}, {count} rules on its event", some, "ns")
        for (program, count), some in samples.items()
    ]
    return Measurement(
        "lsm",
        f"run_time_ns / run_cnt of each program, {times} calls a round, {rounds} interleaved rounds, minima; "
        f"Linux {os.uname().release}",
        sorted(rows, key=lambda one: one.case),
        _bars(samples),
        ["under emulation (a virtual machine without KVM) only the ratios mean something"],
    )


def _bars(samples: Mapping[tuple[str, int], list[float]]) -> list[Bar]:
    bars = []
    for program in CASES:
        one, many = min(samples[program, COUNTS[0]]), min(samples[program, COUNTS[-1]])
        growth = 100 * (many - one) / one
        bars.append(Bar(f"{program}: {COUNTS[-1]} rules against 1, more", growth, MOST_PERCENT, "%"))
    return bars


__all__ = ["Row", "measure"]
