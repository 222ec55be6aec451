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
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from struct import unpack
from typing import Any

from ringfence_runtime.launcher.protocol import ENDED, RUNNING
from tests.bench.record import Bar, Measurement, row
from tests.support.cgroups import PREFIX

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "ringfence-runtime, launcher's socket"
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


def by_socket(path: Path, words: list[str], directory: Path) -> float:
    """Milliseconds that the launcher takes for a command, from connecting to the workload's exit code."""
    null = os.open("/dev/null", os.O_RDWR)
    texts = [str(directory), "22", str(len(words)), *words, "PATH=/usr/bin:/bin"]
    message = b"".join(os.fsencode(text) + b"\0" for text in texts)
    start = time.perf_counter()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        socket.send_fds(sock, [message], [null] * 3)
        answers = [unpack("2i", sock.recv(8)), unpack("2i", sock.recv(8))]
    milliseconds = (time.perf_counter() - start) * 1000
    os.close(null)
    assert [what for what, _ in answers] == [RUNNING, ENDED], "the launcher did not take it"
    assert answers[1][1] == 0, answers
    return milliseconds


def busy(commands: dict[str, list[str]], directory: Path, rounds: int) -> dict[str, list[float]]:
    """Processor time of one run with everything in it, launcher and container too, in ms: by the cpuacct
    controller, so it says little about others' work at the same time. Empty without version 1 of it.
    """
    top = Path("/sys/fs/cgroup/cpuacct")
    if not (top / "cpuacct.usage").exists():
        return {}
    group = top / f"{PREFIX}bench-{os.getpid()}"
    group.mkdir()
    config = directory / "config.json"
    before = config.read_text()
    changed = json.loads(before)
    changed["linux"]["cgroupsPath"] = f"/{group.name}/one"
    config.write_text(json.dumps(changed))

    def join() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))

    def usage() -> float:
        return int((group / "cpuacct.usage").read_text()) / 1e6

    def one(name: str) -> None:
        if name == SOCKET:
            by_socket(path, ["--root", str(directory / "ours-warm"), "run", "one"], directory)
        else:
            subprocess.run(commands[name], cwd=directory, check=True, capture_output=True, preexec_fn=join)

    path = directory / "busy.sock"
    server = subprocess.Popen([*commands["launcher"], "--socket", str(path)], preexec_fn=join)
    samples: dict[str, list[float]] = {name: [] for name in (*commands, SOCKET) if name != "launcher"}
    try:
        while not path.exists():
            time.sleep(0.01)
        time.sleep(1)  # it is loaded when it listens, and still has to freeze its memory
        for _ in range(rounds):
            for name, each in samples.items():
                start = usage()
                one(name)
                time.sleep(0.03)  # a worker's own end comes after its answer
                each.append(usage() - start)
    finally:
        server.terminate()
        server.wait()
        config.write_text(before)
        for path in Path("/sys/fs/cgroup").glob(f"*/{group.name}"):
            path.rmdir()
    return samples


@contextmanager
def launcher(runtime: Path, directory: Path) -> Iterator[Path]:
    """A warm launcher, and the executable that hands its commands to it."""
    warm = directory / "warm"
    path = directory / "launcher.sock"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    install = ["/usr/bin/python3", "-m", "ringfence_runtime", "install", "--launcher", str(path), str(warm)]
    subprocess.run(install, check=True, env=environment)
    process = subprocess.Popen([str(runtime), "launcher", "--socket", str(path)])
    try:
        while not path.exists():
            time.sleep(0.01)
        yield warm
    finally:
        process.terminate()
        process.wait()


def alone(runtime: Path, directory: Path) -> dict[str, list[str]]:
    """A run of each runtime that is there, and the launcher."""
    commands = {"ringfence-runtime": [str(runtime), "--root", str(directory / "ours"), "run", "one"]}
    commands["launcher"] = [str(runtime), "launcher"]
    if shutil.which("runc"):
        commands["runc"] = ["runc", "--root", str(directory / "runc"), "run", "one"]
    if shutil.which("crun"):
        hidden = HIDE_V2 if Path("/sys/fs/cgroup/unified").exists() else []
        commands["crun"] = [*hidden, "crun", "--root", str(directory / "crun"), "run", "one"]
        commands["wrapper"] = [*hidden, "true"]
    return commands


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
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in (*commands, SOCKET)}
    for number in range(rounds + 2):
        for name, command in commands.items():
            words = [] if name == "wrapper" else ["run", f"rftest-bench-{number}"]
            sample = once([*command, *words], directory)
            if number >= 2:
                samples[name].append(sample)
        words = ["--root", str(directory / "ours-warm"), "run", f"rftest-bench-{number}"]
        taken = by_socket(directory.parent / "launcher.sock", words, directory)
        if number >= 2:
            samples[SOCKET].append((taken, 0.0))
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
        spent = busy(alone(runtime, directory), directory, 5 if quick else 40)
        crowd = many(runtime, directory, 40 if quick else 500)
    rows = [row(f"{which} run, wall", [wall for wall, _ in each], "ms") for which, each in samples.items()]
    rows += [
        row(f"{which} run, CPU", [cpu for _, cpu in each], "ms", best=False)
        for which, each in samples.items()
        if which != SOCKET  # the worker is the launcher's child, not ours
    ]
    rows += [row(f"{which} run, all CPU", each, "ms") for which, each in spent.items()]
    rows.append(row("containers started and removed, 8 at a time", [crowd["per_second"]], "/s"))
    bars = [Bar("failed, or left a cgroup, state or mount", crowd["bad"], 0, "")]
    ours = min(wall for wall, _ in samples["ringfence-runtime"])
    if "runc" in samples:
        bars.append(Bar("cold run against runc", ours / min(wall for wall, _ in samples["runc"]), 1.0, "x"))
    best = {which: min(wall for wall, _ in each) for which, each in samples.items()}
    if "crun" in best:
        crun = best["crun"] - best.get("wrapper", 0.0)
        bars.append(Bar("launcher's socket against crun less wrapper", best[SOCKET] / crun, 1.0, "x"))
    bars.append(Bar("launcher's socket, best", best[SOCKET], 6.0, "ms"))
    return Measurement("runtime", "run of a static /bin/true, cold", rows, bars, [json.dumps(crowd)])
