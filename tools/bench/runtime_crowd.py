# SPDX-License-Identifier: Apache-2.0
"""Many containers at once: failures, leftovers, and the launcher's memory meanwhile."""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.support.cgroups import PREFIX
from tools.bench.record import Bar, Row, row
from tools.bench.runtime_runs import LAUNCHER

AT_ONCE = 8
KEPT = 20
MOST_KB = 15 * 1024


class Crowd(NamedTuple):
    """What was found."""

    rows: list[Row]
    bars: list[Bar]
    notes: list[str]


def _traces(directory: Path) -> dict[str, object]:
    """What containers could leave: mounts and links of this namespace, cgroups, states."""
    return {
        "mounts": Path("/proc/self/mountinfo").read_text(),
        "links": sorted(os.listdir("/sys/class/net")),
        "cgroups": sorted(str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{PREFIX}many-*")),
        "states": sorted(os.listdir(directory / "many")) if (directory / "many").exists() else [],
    }


def _start_many(words: list[str], directory: Path, count: int) -> tuple[int, float]:
    """(failures, seconds) of `count` containers, eight at a time."""

    def one(number: int) -> int:
        command = [*words, "--root", str(directory / "many"), "run", f"{PREFIX}many-{number}"]
        null = subprocess.DEVNULL
        return subprocess.run(
            command, cwd=directory / "bundle", check=False, stdin=null, stdout=null
        ).returncode

    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = sum(code != 0 for code in pool.map(one, range(count)))
    return failed, time.perf_counter() - start


def _launcher(directory: Path) -> int:
    """The process that listens: found by its command line, below us."""
    for child in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        if LAUNCHER in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise AssertionError(f"no launcher for {directory}")


def _descendants(pid: int) -> list[int]:
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [each for child in children for each in _descendants(child)]


def _kilobytes(pid: int) -> int:
    """Resident memory that is its own, and its share of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def _resident(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def _beside(path: Path, directory: Path) -> tuple[int, int]:
    """Returns (runtime processes, additional kilobytes) for `KEPT` running containers of the launcher."""
    launcher = _launcher(directory)
    before = {launcher, *_descendants(launcher)}
    held = sum(_kilobytes(pid) for pid in before)
    config = directory / "bundle/config.json"
    text = config.read_text()
    config.write_text(text.replace('"/bin/true"', '"/bin/sleep", "600"'))
    (directory / "bundle/rootfs/bin/sleep").unlink(missing_ok=True)
    os.link(directory / "bundle/rootfs/bin/true", directory / "bundle/rootfs/bin/sleep")
    names = [f"{PREFIX}many-{number}" for number in range(KEPT)]
    words = [str(path), "--root", str(directory / "many")]
    null = subprocess.DEVNULL
    clients = [
        subprocess.Popen([*words, "run", name], cwd=directory / "bundle", stdin=null, stdout=null)
        for name in names
    ]
    try:
        workloads: set[int] = set()
        while len(workloads) < KEPT:
            time.sleep(0.05)
            below = set(_descendants(launcher)) - before
            workloads = {pid for pid in below if b"sleep\0" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        ours = set(_descendants(launcher)) - before - workloads
        more = sum(_kilobytes(pid) for pid in before) - held
    finally:
        for name in names:
            subprocess.run([*words, "delete", "--force", name], check=False)
        for client in clients:
            client.wait()
        config.write_text(text)
    return len(ours), more


def crowd(path: Path, directory: Path, count: int) -> Crowd:
    """By the cold command and by the launcher."""
    (directory / "many").mkdir(exist_ok=True)
    before = _traces(directory)
    rows, bars = [], []
    for how, executable in (("cold", path.with_name("cold")), ("warm", path)):
        failed, seconds = _start_many([str(executable)], directory, count)
        after = _traces(directory)
        left = [key for key in before if before[key] != after[key]]
        what = f"{count} containers, {AT_ONCE} at a time, {how}"
        bars.append(Bar(f"{what}: failed, or left something", failed + len(left), 0, ""))
        rows.append(row(f"started and removed, {AT_ONCE} at a time, {how}", [count / seconds], "/s"))
    processes, more = _beside(path, directory)
    launcher = _launcher(directory)
    resident = sum(_resident(pid) for pid in (launcher, *_descendants(launcher)))
    rows.append(row("launcher and its native init, resident", [float(resident)], "kB"))
    rows.append(row(f"launcher's memory for {KEPT} running containers, beyond none", [float(more)], "kB"))
    bars.append(Bar("launcher and its native init, resident", resident, MOST_KB, "kB"))
    bars.append(Bar(f"runtime processes besides {KEPT} running containers", processes, 0, ""))
    note = f"{more / KEPT:.1f} kB of the launcher a running container: descriptors and a record"
    return Crowd(rows, bars, [note])
