# SPDX-License-Identifier: Apache-2.0
"""What a cold `run` of a static /bin/true costs, beside runc and crun on the same bundle in the same run, and
whether 500 containers by eight at a time all start and leave nothing.

crun refuses a hybrid host, so it runs in a mount namespace where the version 2 hierarchy is unmounted; what
`unshare` and `umount` cost by themselves is the row `wrapper`.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.record import Bar, Measurement, row

ROOT = Path(__file__).resolve().parents[2]
HIDE_V2 = ["unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$@"', "sh"]


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


def once(command: list[str], directory: Path) -> tuple[float, float]:
    """(wall, CPU) of one run in ms."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, cwd=directory, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall * 1000, cpu * 1000


@contextmanager
def launcher(runtime: Path, directory: Path) -> Iterator[Path]:
    """A warm launcher, and the executable that hands its commands to it."""
    warm = directory / "warm"
    socket = directory / "launcher.sock"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    install = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", "--launcher", str(socket), str(warm)]
    subprocess.run(install, check=True, env=environment)
    process = subprocess.Popen([str(runtime), "launcher", "--socket", str(socket)])
    try:
        while not socket.exists():
            time.sleep(0.01)
        yield warm
    finally:
        process.terminate()
        process.wait()


def cold(runtime: Path, warm: Path, directory: Path, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """All runtimes, interleaved, so that the machine's mood is shared."""
    commands = {
        "ringfence-runtime": [str(runtime), "--root", str(directory / "ours")],
        "ringfence-runtime, warm": [str(warm), "--root", str(directory / "ours-warm")],
    }
    if shutil.which("runc"):
        commands["runc"] = ["runc", "--root", str(directory / "runc")]
    if shutil.which("crun"):
        hybrid = Path("/sys/fs/cgroup/unified").exists()
        commands["crun"] = [*(HIDE_V2 if hybrid else []), "crun", "--root", str(directory / "crun")]
        if hybrid:
            commands["wrapper"] = [*HIDE_V2, "true"]
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(rounds + 2):
        for name, command in commands.items():
            words = [] if name == "wrapper" else ["run", f"rftest-bench-{number}"]
            sample = once([*command, *words], directory)
            if number >= 2:
                samples[name].append(sample)
    return samples


def many(runtime: Path, directory: Path, count: int) -> dict[str, Any]:
    """`count` containers, eight at a time: failures, and what is left."""
    mounts = Path("/proc/self/mountinfo").read_text()
    command = [str(runtime), "--root", str(directory / "many"), "run"]

    def one(number: int) -> int:
        name = f"rftest-many-{number}"
        return subprocess.run(
            [*command, name], cwd=directory, check=False, stdin=subprocess.DEVNULL
        ).returncode

    start = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        failed = sum(code != 0 for code in pool.map(one, range(count)))
    seconds = time.perf_counter() - start
    left = [str(path) for path in Path("/sys/fs/cgroup").glob("**/rftest-many-*")]
    states = os.listdir(directory / "many")
    same = Path("/proc/self/mountinfo").read_text() == mounts
    return {
        "containers": count,
        "failed": failed,
        "seconds": round(seconds, 1),
        "per_second": round(count / seconds, 1),
        "cgroups_left": len(left),
        "states_left": len(states),
        "mounts_changed": not same,
        "bad": failed + len(left) + len(states) + (not same),
    }


def measure(*, quick: bool) -> Measurement:
    """Wall and CPU time of each runtime, and the crowd."""
    with tempfile.TemporaryDirectory(prefix="rftest-bench-") as name:
        directory = bundle(Path(name) / "bundle")
        runtime = Path(name) / "ringfence-runtime"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
        install = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", str(runtime)]
        subprocess.run(install, check=True, env=environment)
        with launcher(runtime, Path(name)) as warm:
            samples = cold(runtime, warm, directory, 5 if quick else 40)
        crowd = many(runtime, directory, 40 if quick else 500)
    rows = [row(f"{which} run, wall", [wall for wall, _ in each], "ms") for which, each in samples.items()]
    rows += [
        row(f"{which} run, CPU", [cpu for _, cpu in each], "ms", best=False)
        for which, each in samples.items()
    ]
    rows.append(row("containers started and removed, 8 at a time", [crowd["per_second"]], "/s"))
    bars = [Bar("failed, or left a cgroup, state or mount", crowd["bad"], 0, "")]
    ours = min(wall for wall, _ in samples["ringfence-runtime"])
    if "runc" in samples:
        bars.append(Bar("cold run against runc", ours / min(wall for wall, _ in samples["runc"]), 1.0, "x"))
    return Measurement("runtime", "run of a static /bin/true, cold", rows, bars, [json.dumps(crowd)])
