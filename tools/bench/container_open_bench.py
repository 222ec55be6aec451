# SPDX-License-Identifier: Apache-2.0
"""open+close in a loop inside a container: no agent, the default pack enforcing, and peers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence

from tools.bench.record import Bar, Measurement, row
from tools.bench.setup import bench_agent, bench_container, numbers

MOST_PERCENT = 15.0
COUNT = "tracepoint:syscalls:sys_enter_open* { @[comm] = count(); }"
# Peers look for the tracefs where distributions mount it; theirs is in a mount namespace of their own.
TRACEFS = ["unshare", "-m", "sh", "-c", 'mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null; '
           'mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec "$@"', "sh"]  # fmt: skip
PEERS = {
    "bpftrace, counting opens": ("bpftrace", ["bpftrace", "-e", COUNT]),
    "opensnoop (libbpf-tools)": ("opensnoop", ["opensnoop"]),
}


def measure(*, quick: bool) -> Measurement:
    """Interleaved rounds; every case measures the same loop in the same container shape."""
    rounds, batches = (2, 5) if quick else (6, 15)
    peers = {case: argv for case, (program, argv) in PEERS.items() if shutil.which(program)}
    cases = ["no agent", "agent, default pack enforcing", *peers]
    samples: dict[str, list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            with _beside(case, peers), bench_container() as container:
                argv = container.command(["/bin/loops", "open", str(batches), "40000", "/etc/hosts"])
                samples[case] += numbers(argv)
    rows = [row(case, values, "ns") for case, values in samples.items()]
    bare, ours = rows[0].value, rows[1].value
    slower = 100 * (ours / bare - 1)
    missing = [program for program, _ in PEERS.values() if not shutil.which(program)]
    return Measurement(
        "container-open",
        f"loops.c in a runc container, pinned, {rounds} interleaved rounds of {batches} batches, minima",
        rows,
        [Bar("open+close in a container, slower than without the agent", slower, MOST_PERCENT, "%")],
        [f"not installed, so not measured: {', '.join(missing)}"] if missing else [],
    )


@contextlib.contextmanager
def _beside(case: str, peers: dict[str, list[str]]) -> Iterator[None]:
    if case in peers:
        with _peer(peers[case]):
            yield
    elif case == "no agent":
        yield
    else:
        with bench_agent():
            yield


@contextlib.contextmanager
def _peer(argv: Sequence[str]) -> Iterator[None]:
    """Another tool, attached: it says nothing when it is."""
    process = subprocess.Popen([*TRACEFS, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(3)  # 1.5 s was always enough
        if process.poll() is not None:
            raise RuntimeError(f"{argv[0]} ended with status {process.returncode}")
        yield
    finally:
        process.terminate()
        process.wait(10)
