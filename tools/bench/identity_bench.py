# SPDX-License-Identifier: Apache-2.0
"""5,000 pods in a simulated API server: what following them costs in memory, and how long a name takes: from
what was followed (while more changes come, and afterwards), and where a real containerd is asked, too."""

from __future__ import annotations

import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.apiserver import fake_apiserver, pod
from tests.support.cri import running_cri
from tools.bench.record import Bar, Measurement, percentile, row

PODS = 5000
MOST_MB, MOST_MS = 20.0, 1.0
CHURN = 5_000  # events of the watch after the list
PADDING = 4000  # bytes of managed fields in each pod, as real ones have


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def follow(url: str, pods: int, churn: int) -> dict[str, Any]:
    """Measures in a child process, which holds only the agent's data."""
    import ssl  # noqa: F401 - a part of the agent's own memory in a cluster, not of what 5,000 pods add

    from ringfence.containers.enrich.worker import enrich
    from ringfence.containers.kubernetes.client import Client
    from ringfence.containers.kubernetes.pods import PodCache
    from ringfence.containers.kubernetes.source import Kubernetes
    from ringfence.containers.kubernetes.watch import PodWatch

    cache = PodCache()
    watch = PodWatch(Client(url, None, None), "node-1", cache)
    gc.collect()
    before, peak = _resident_mb(), 0.0
    began = time.monotonic()
    watch.start()
    while len(cache) < pods or not watch.up:
        peak = max(peak, _resident_mb())
        time.sleep(0.02)
    listed, settled = time.monotonic() - began, _resident_mb()
    sys.setswitchinterval(0.001)  # as the agent has it
    print(json.dumps({"listed": listed}), flush=True)
    meanwhile = _names(pods, enrich, Kubernetes(None, cache))
    while watch.events < churn:
        peak = max(peak, _resident_mb())
        time.sleep(0.02)
    after = _resident_mb()
    took = _names(pods, enrich, Kubernetes(None, cache))
    watch.close()
    sizes = {"before": before, "settled": settled, "peak": max(peak, after), "after": after}
    return {**sizes, "listed": listed, "took": took, "meanwhile": meanwhile}


def _names(pods: int, enrich: Any, source: Any) -> list[float]:
    """Milliseconds that each pod's container took, as enrichment asks."""
    from ringfence.containers.enrich.request import Request

    took = []
    for number in range(pods):
        uid = pod(number)["metadata"]["uid"]
        request = Request(number, "c" * 64, f"/kubepods/burstable/pod{uid}/{'c' * 64}", "", 0, 0)
        start = time.perf_counter()
        facts = enrich(request, [source], exists=lambda path: True)
        took.append((time.perf_counter() - start) * 1000)
        assert facts.pod == f"web-{number}"
    return took


def ask_containerd(times: int) -> list[float]:
    """Milliseconds that the names of one container took, where its runtime says them; empty: no runtime."""
    if shutil.which("containerd") is None or shutil.which("busybox") is None:
        return []
    from ringfence.containers.enrich.request import Request
    from ringfence.containers.kubernetes.cri import Cri
    from ringfence.containers.kubernetes.source import Kubernetes

    took = []
    with running_cri("/bin/busybox") as daemon, daemon.pod("bench", "rf-bench", {"app": "x"}) as made:
        identifier = made.run("web", "/bin/sleep", "600")
        cri = Cri(daemon.socket)
        request = Request(1, identifier, f"/kubepods/burstable/pod{made.uid}/{identifier}", "", 0, 0)
        for _ in range(times):
            start = time.perf_counter()
            facts = Kubernetes(cri, None).find(request)
            took.append((time.perf_counter() - start) * 1000)
            assert facts is not None
            assert facts.pod == "bench"
        cri.close()
    return took


def _run(pods: int, churn: int) -> dict[str, Any]:
    with fake_apiserver() as fake:
        for number in range(pods):
            item = pod(number, padding=PADDING)
            fake.pods[item["metadata"]["uid"]] = item
        words = [sys.executable, "-m", "tools.bench.identity_bench", fake.url, str(pods), str(churn)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            child.stdout.readline()  # it has listed them
            for number in range(churn):
                label = {"app": f"app-{number % 50}", "round": str(number // pods)}
                fake.tell("MODIFIED", pod(number % pods, padding=PADDING, labels=label))
            found: dict[str, Any] = json.loads(child.stdout.read())
    return found


def measure(*, quick: bool) -> Measurement:
    """Three runs; the memory of the worst counts."""
    pods, churn, times = (1000, 2000, 1) if quick else (PODS, CHURN, 3)
    runs = [_run(pods, churn) for _ in range(times)]
    took = [one for run in runs for one in run["took"]]
    grown = [run["peak"] - run["before"] for run in runs]
    flat = [run["after"] - run["settled"] for run in runs]
    p99 = [percentile(run["took"], 99) for run in runs]
    busy = [percentile(run["meanwhile"], 99) for run in runs]
    asked = ask_containerd(50 if quick else 500)
    by_runtime = [
        row("the same where containerd is asked (a container's first time), median", asked, "ms", best=False),
        row("the same, p99", [percentile(asked, 99)], "ms"),
    ]
    return Measurement(
        "identity",
        f"a fake API server with {pods} pods (4 kB of managed fields each) lists them to a process,"
        f" then reports {churn} changes; resident memory every 20 ms; then every pod is looked up as "
        "enrichment does",
        [
            row("most memory beyond the start", grown, "MB", best=False),
            row("memory after the changes, beyond that after the list", flat, "MB", best=False),
            row("list of all pods", [run["listed"] for run in runs], "s", best=False),
            row("one container's names, median", [percentile(took, 50)], "ms"),
            row("one container's names, p99", p99, "ms", best=False),
            row("the same while pods change, p99", busy, "ms", best=False),
            *(by_runtime if asked else []),
        ],
        [
            Bar(f"most memory that {pods} pods add", max(grown), MOST_MB, "MB"),
            Bar("p99 of enrichment, median of the runs", statistics.median(p99), MOST_MS, "ms"),
        ],
        [f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs: waiting for one counts"],
    )


if __name__ == "__main__":
    print(json.dumps(follow(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
