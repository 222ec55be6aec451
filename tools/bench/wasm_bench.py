# SPDX-License-Identifier: Apache-2.0
"""The cost of starting a WebAssembly module by the warm launcher, beside a static native program.

The module has 1 MB and ends at once; its native code is in the cache from the second start on. Both
containers are started in turn by the launcher's socket, from the same configuration. Other work on the
machine only makes a start longer, so the minima of wall time are compared; processor time includes launcher
and container. The compiler's time for the same module is what a start without a cache would take.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.cgroups import PREFIX
from tools.bench.record import Bar, Measurement, row
from tools.bench.runtime_bench import ROOT, bundle
from tools.bench.runtime_runs import LAUNCHER, by_socket

NATIVE, MODULE = "native, static /bin/true", "module of 1 MB, code in the cache"
_FUNCTIONS = 720
_SETTLE = 0.02  # what the launcher does after its answer belongs to the start


def source() -> str:
    """C that becomes about 1 MB of module: functions that the program could call."""
    lines = []
    for number in range(_FUNCTIONS):
        steps = "".join(f"x=(x^{number * 40503 + step}u)*{step * 2 + 3}u;t[x&63]+=x;" for step in range(11))
        lines.append(f"static unsigned f{number}(unsigned x, unsigned *t) {{{steps}return x;}}")
    names = ",".join(f"f{number}" for number in range(_FUNCTIONS))
    lines.append(f"static unsigned (*const all[])(unsigned, unsigned *) = {{{names}}};")
    lines.append("int main(int n, char **w) {unsigned t[64]; return n > 1 ? (int)all[n](n, t) : 0;}")
    return "\n".join(lines)


def build(directory: Path) -> Path:
    """Compiles the module."""
    path = directory / "module.wasm"
    command = ["clang", "--target=wasm32-wasi", "--sysroot=/usr", "-O0", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source(), text=True, check=True)
    assert 0.9e6 < path.stat().st_size < 1.2e6, path.stat().st_size
    return path


def bundles(directory: Path, group: str) -> dict[str, Path]:
    """A bundle of each kind, with its cgroup below `group`."""
    found = {NATIVE: bundle(directory / "native"), MODULE: bundle(directory / "module")}
    shutil.copy(build(directory), found[MODULE] / "rootfs/module.wasm")
    for kind, path in found.items():
        config = json.loads((path / "config.json").read_text())
        config["linux"]["cgroupsPath"] = f"/{group}/one"
        if kind == MODULE:
            config["annotations"] = {"ringfence.io/wasm": "true"}
            config["process"]["args"] = ["/module.wasm"]
        (path / "config.json").write_text(json.dumps(config))
    return found


def library() -> str:
    """The path of the engine's library in this interpreter's package wasmtime."""
    found = importlib.util.find_spec("wasmtime")
    assert found is not None, "needs the Python package wasmtime"
    return f"{(found.submodule_search_locations or [''])[0]}/linux-{os.uname().machine}/_libwasmtime.so"


class Usage:
    """Processor time of a cgroup with everything in it, by version 1's cpuacct controller."""

    def __init__(self, name: str) -> None:
        self.path = Path("/sys/fs/cgroup/cpuacct") / name
        if self.path.parent.exists():
            self.path.mkdir()

    def take(self, pid: int) -> None:
        """Moves the launcher and its children there."""
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (str(pid), *children) if self.path.exists() else ():
            (self.path / "cgroup.procs").write_text(each)

    def now(self) -> float:
        """Milliseconds so far; 0 without the controller."""
        return int((self.path / "cpuacct.usage").read_text()) / 1e6 if self.path.exists() else 0.0

    def remove(self) -> None:
        """Removes the cgroup, and the others of this name that its containers had."""
        for path in Path("/sys/fs/cgroup").glob(f"*/{self.path.name}"):
            path.rmdir()


@contextmanager
def launcher(directory: Path, usage: Usage) -> Iterator[Path]:
    """An installed runtime with the engine, whose launcher listens."""
    path, sock = directory / "ringfence-runtime", directory / LAUNCHER
    words = [
        "install",
        "--launcher",
        str(sock),
        "--wasm",
        library(),
        "--wasm-cache",
        str(directory / "cache"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    command = ["/usr/bin/python3", "-m", "ringfence_runtime", *words, str(path)]
    subprocess.run(command, check=True, env=environment)
    process = subprocess.Popen([str(path), "launcher", "--socket", str(sock)])
    try:
        while not sock.exists():
            time.sleep(0.01)
        time.sleep(1)  # it listens before it has put its memory in order
        usage.take(process.pid)
        yield path
    finally:
        process.terminate()
        process.wait()
        time.sleep(0.1)


def compile_times(directory: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds of wall and processor time of the engine's compiler for the module."""
    engine = directory / "ringfence-runtime.wasm"
    command = [str(engine / "ld.so"), "--library-path", str(engine), str(engine / "wasm"), "compile"]
    wall, cpu = [], []
    for _ in range(rounds):
        before, start = os.times(), time.perf_counter()
        with (directory / "module.wasm").open("rb") as module:
            subprocess.run(command, stdin=module, stdout=subprocess.DEVNULL, check=True)
        wall.append((time.perf_counter() - start) * 1000)
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        cpu.append(used * 1000)
    return wall, cpu


def measure(*, quick: bool) -> Measurement:
    """Starts both in turn."""
    rounds = 20 if quick else 200
    usage = Usage(f"{PREFIX}bench-{os.getpid()}")
    wall: dict[str, list[float]] = {NATIVE: [], MODULE: []}
    cpu: dict[str, list[float]] = {NATIVE: [], MODULE: []}
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}bench-", dir="/run") as name:
        directory = Path(name)
        found = bundles(directory, usage.path.name)
        try:
            with launcher(directory, usage):
                time.sleep(3)  # it remembers a module by its times only if they are older than two seconds
                for number in range(rounds + 3):
                    for kind, path in found.items():
                        words = ["--root", str(directory / "state"), "run", f"{PREFIX}bench-{number}"]
                        before = usage.now()
                        milliseconds = by_socket(directory / LAUNCHER, words, path)
                        time.sleep(_SETTLE)
                        if number >= 3:
                            wall[kind].append(milliseconds)
                            cpu[kind].append(usage.now() - before)
        finally:
            usage.remove()
        compiling = compile_times(directory, 3 if quick else 10)
    best = {kind: min(each) for kind, each in wall.items()}
    rows = [row(f"{kind}: run, wall", each, "ms") for kind, each in wall.items()]
    rows += [row(f"{kind}: run, processor time", each, "ms") for kind, each in cpu.items() if any(each)]
    rows += [
        row("compiler alone, wall", compiling[0], "ms"),
        row("compiler alone, processor", compiling[1], "ms"),
    ]
    bars = [
        Bar("a module's warm start, best", best[MODULE], 8.0, "ms"),
        Bar("a module against a native program, best", best[MODULE] / best[NATIVE], 1.3, "x"),
        Bar("a module's warm start against compiling it, best", best[MODULE] / min(compiling[0]), 1.0, "x"),
    ]
    ordered = {kind: sorted(each)[len(each) // 2] for kind, each in wall.items()}
    notes = [f"{kind}: median {value:.1f} ms" for kind, value in ordered.items()]
    return Measurement(
        "wasm", "run by the launcher's socket; minima of interleaved rounds", rows, bars, notes
    )
