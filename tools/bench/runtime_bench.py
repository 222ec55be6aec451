# SPDX-License-Identifier: Apache-2.0
"""The cost of starting a container: `run` of a static /bin/true by Ringfence (cold, warm), runc and crun.

All runtimes start the same bundle, one after the other in every round, with their state on the same tmpfs
(where all of them have it by default). The commands are started by posix_spawn with /dev/null as input and
output, and timed from there to their exit: what a user of the command line sees. crun refuses a hybrid host,
so all are measured a second time in a mount namespace where the version 2 hierarchy is hidden, and crun is
compared with what the others do there.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.cgroups import PREFIX
from tools.bench.record import Bar, Measurement, Row, percentile, row
from tools.bench.runtime_crowd import crowd
from tools.bench.runtime_runs import LAUNCHER, by_socket, processor_time, timed

ROOT = Path(__file__).resolve().parents[2]
UNIFIED = Path("/sys/fs/cgroup/unified")
HIDDEN = "where version 2 is hidden: "
COLD, WARM, SOCKET = "ringfence-runtime", "ringfence-runtime, warm", "ringfence-runtime, launcher's socket"


def bundle(directory: Path) -> Path:
    """runc's own example configuration, with busybox's `true`."""
    rootfs = directory / "rootfs"
    for name in ("bin", "proc", "dev", "sys"):
        (rootfs / name).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox is not None, "needs busybox-static"
    shutil.copy(busybox, rootfs / "bin/true")
    subprocess.run(["runc", "spec", "--bundle", str(directory)], check=True)
    file = directory / "config.json"
    config = json.loads(file.read_text())
    config["process"].update(terminal=False, args=["/bin/true"])
    config["process"].pop("rlimits", None)
    file.write_text(json.dumps(config))
    return directory


@contextmanager
def installed(directory: Path) -> Iterator[Path]:
    """Our executable, and a launcher on the socket that it knows; `cold` beside it knows none."""
    path, socket = directory / "ringfence-runtime", directory / LAUNCHER
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    for target, known in ((path, socket), (directory / "cold", directory / "none.sock")):
        words = ["install", "--launcher", str(known), str(target)]
        subprocess.run(["/usr/bin/python3", "-m", "ringfence_runtime", *words], check=True, env=environment)
    process = subprocess.Popen([str(path), "launcher", "--socket", str(socket)])
    try:
        while not socket.exists():
            os.sched_yield()
        yield path
    finally:
        process.terminate()
        process.wait()


def commands(path: Path, directory: Path) -> dict[str, list[str]]:
    """`run` of each runtime that is there."""
    state = directory / "ours"
    found = {
        COLD: [str(path.with_name("cold")), "--root", str(state), "run"],
        WARM: [str(path), "--root", str(state), "run"],
    }
    hybrid = (UNIFIED / "cgroup.procs").exists()
    for name in ("runc", "crun"):
        if shutil.which(name) and not (name == "crun" and hybrid):
            found[name] = [name, "--root", str(directory / name), "run"]
    return found


def inner(directory: Path, rounds: int) -> dict[str, Any]:
    """All that is measured in one view of the cgroups: milliseconds of wall and processor time of each
    runtime.
    """
    with installed(directory) as path:
        runs = commands(path, directory)
        wall: dict[str, list[float]] = {name: [] for name in (*runs, SOCKET)}
        for number in range(rounds + 3):
            name = f"{PREFIX}bench-{number}"
            taken = {which: timed([*words, name], directory / "bundle") for which, words in runs.items()}
            words = ["--root", str(directory / "ours"), "run", name]
            taken[SOCKET] = by_socket(directory / LAUNCHER, words, directory / "bundle")
            for which, milliseconds in taken.items() if number >= 3 else ():
                wall[which].append(milliseconds)
        return {"wall": wall, "cpu": processor_time(runs, directory, rounds)}


def hidden(directory: Path, rounds: int) -> dict[str, Any]:
    """`inner` in a mount namespace without the version 2 hierarchy."""
    script = f'umount {UNIFIED} && exec "$@"'
    command = [sys.executable, "-m", "tools.bench.runtime_bench", str(directory), str(rounds)]
    apart = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    done = subprocess.run(apart, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _rows(found: dict[str, Any], where: str) -> list[Row]:
    rows = [row(f"{where}{name} run, wall", each, "ms", best=False) for name, each in found["wall"].items()]
    return rows + [
        row(f"{where}{name} run, all processor time", each, "ms", best=False)
        for name, each in found["cpu"].items()
    ]


def measure(*, quick: bool) -> Measurement:
    """Start-up of each runtime, and a crowd."""
    rounds = 10 if quick else 100
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}bench-", dir="/run") as name:
        directory = Path(name)
        bundle(directory / "bundle")
        plain = inner(directory, rounds)
        apart = hidden(directory, rounds) if shutil.which("crun") and UNIFIED.exists() else plain
        with installed(directory) as path:
            many = crowd(path, directory, 40 if quick else 500)
    median = {which: statistics.median(each) for which, each in plain["wall"].items()}
    rows = _rows(plain, "") + (_rows(apart, HIDDEN) if apart is not plain else []) + many.rows
    bars = [
        Bar("warm, as the command line's user sees it: p50", median[WARM], 6.0, "ms"),
        Bar("warm, by the launcher's socket: p50", median[SOCKET], 6.0, "ms"),
        *many.bars,
    ]
    if "runc" in median:
        bars.append(Bar("cold against runc, p50", median[COLD] / median["runc"], 1.0, "x"))
    if "crun" in apart["wall"]:
        crun, warm = (statistics.median(apart["wall"][which]) for which in ("crun", WARM))
        bars.append(Bar("warm against crun, both without version 2, p50", warm / crun, 1.0, "x"))
    tail = percentile(plain["wall"][WARM], 95)
    return Measurement(
        "runtime",
        "run of a static /bin/true; medians of interleaved rounds, state on tmpfs",
        rows,
        bars,
        [f"warm, p95: {tail:.1f} ms", *many.notes],
    )


if __name__ == "__main__":
    try:
        json.dump(inner(Path(sys.argv[1]), int(sys.argv[2])), sys.stdout)
    finally:
        for leftover in UNIFIED.glob(f"{PREFIX}bench-*"):
            shutil.rmtree(leftover)  # crun makes directories where the hierarchy would be
