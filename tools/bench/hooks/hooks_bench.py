# SPDX-License-Identifier: Apache-2.0
"""The cost of each kind of system call hook for a process that is not observed.

This is why the probes attach to per-syscall tracepoints, and why 32-bit calls, which these do not see,
are observed by a raw program that reads one word and exits.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ringfence.bpf.attach import Attached, Place, attach_all, detach
from ringfence.bpf.objects import Loaded, ObjectFile, load_error
from tools.bench.record import Measurement, row
from tools.bench.setup import loops, numbers

HERE = Path(__file__).resolve().parent
NOTHING = "nothing attached"
#: What is measured -> the program in hooks.bpf.c.
CASES = {
    NOTHING: "",
    "tracepoint of another call": "unrelated_tracepoint",
    "empty sys_enter": "empty_sys_enter",
    "sys_enter, 32-bit calls only": "compat_sys_enter",
    "sys_exit, 32-bit calls only": "compat_sys_exit",
    "sys_enter, task storage": "storage_sys_enter",
    "sys_enter, hash by cgroup": "hash_sys_enter",
    "tracepoint of openat's exit, task storage": "storage_open_exit",
    "tracepoint of openat's exit, the file": "file_open_exit",
}
#: Calls a batch: half a millisecond, so that the quickest batch is one that nobody interrupted.
CALLS = {"getppid": 5_000, "open+close": 700}


def measure(*, quick: bool) -> Measurement:
    """Runs rounds over all cases, so that other load affects all of them equally."""
    rounds, batches = (3, 40) if quick else (15, 60)
    samples: dict[tuple[str, str], list[float]] = {}
    with _programs() as loaded:
        for _ in range(rounds):
            for case, program in CASES.items():
                with _attached(loaded, program):
                    for call, count in CALLS.items():
                        got = numbers([str(loops()), call, str(batches), str(count), "/etc/hostname"])
                        samples.setdefault((call, case), []).extend(got)
    rows = [row(f"{call}, {case}", got, "ns") for (call, case), got in samples.items()]
    return Measurement(
        "hooks",
        f"loops.c pinned to one CPU, {rounds} interleaved rounds of {batches} batches, minima",
        rows,
        [],
        [
            f"{one.case}: {one.value - _bare(samples, one.case):+.0f} ns"
            for one in rows
            if NOTHING not in one.case
        ],
    )


def _bare(samples: dict[tuple[str, str], list[float]], case: str) -> float:
    return min(samples[case.partition(",")[0], NOTHING])


@contextlib.contextmanager
def _programs() -> Iterator[Loaded]:
    with tempfile.TemporaryDirectory(prefix="rfbench-hooks-") as directory:
        path = Path(directory) / "hooks.bpf.o"
        arch = "arm64" if platform.machine() == "aarch64" else "x86"
        flags = ("-g", "-O2", "-target", "bpf", "-mcpu=v3", f"-D__TARGET_ARCH_{arch}")
        subprocess.run(["clang", *flags, "-c", str(HERE / "hooks.bpf.c"), "-o", str(path)], check=True)
        with ObjectFile(path) as file:
            try:
                loaded = file.load()
            except OSError as error:
                raise load_error(error) from None
    try:
        yield loaded
    finally:
        loaded.close()


@contextlib.contextmanager
def _attached(loaded: Loaded, name: str) -> Iterator[None]:
    if not name:
        yield
        return
    program = loaded.programs[name]
    kind, _, target = program.section.partition("/")
    links = list(attach_all([Place(program, kind, target)], ""))
    try:
        yield
    finally:
        detach(link.fd for link in links if isinstance(link, Attached))
