# SPDX-License-Identifier: Apache-2.0
"""Attacks whose actor is not a container: the kernel runs a usermode helper, a host program loads code.

Attacks that set a usermode helper run only on disposable machines, and restore the setting.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ringfence.proof.fixtures import Fixtures
from ringfence.proof.program import DID_NOT_RUN, Attempt, read_attempt

__all__ = ["HOST_ATTACKS", "run_host_attack"]

_CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
_MODPROBE = Path("/proc/sys/kernel/modprobe")
_NO_FAMILY = 45  # AF_MCTP: the kernel requests a module if it is not built in
_HELPER_SECONDS = 2.0  # a helper that is going to run has run by then
_DETECTOR_SECONDS = 3.0  # a detector reads the usermode helper settings once a second


def run_host_attack(words: str, fixtures: Fixtures, image: Path, patience: float) -> Attempt:
    """Runs the attack `words`. `image` is the root filesystem of the test's containers."""
    name, _, rest = words.partition(" ")
    return HOST_ATTACKS[name](rest, fixtures, image, patience)


def _map(where: str, fixtures: Fixtures, image: Path, patience: float) -> Attempt:
    """Makes a program on the disk map a file for execution: `image PATH`, or `own`."""
    executable = (fixtures.disk or fixtures.directory) / "attacks"
    path = executable if where == "own" else image / where.removeprefix("image ").lstrip("/")
    got = subprocess.run([executable, "map", path], check=False, capture_output=True, timeout=60 * patience)
    return read_attempt(got.returncode, got.stdout.decode(errors="replace"))


def _helper(setting: str, fixtures: Fixtures, image: Path, patience: float) -> Attempt:
    """Makes the kernel run a program of the test, by core_pattern, release_agent or the modprobe path."""
    mark = fixtures.directory / "mark"
    mark.unlink(missing_ok=True)
    script = fixtures.directory / "helper"
    script.write_text(f"#!/bin/sh\n: >{mark}\n")
    for path in (script, *list(script.parents)[:2]):
        path.chmod(0o755)
    way = {"core_pattern": _crash, "release_agent": _release, "modprobe": _request}[setting]
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if not way(script, fixtures):
        return Attempt(setting, at, 1, "failed ENOENT")
    end = time.monotonic() + _HELPER_SECONDS * patience
    while not mark.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return Attempt(setting, at, *((0, "worked 0") if mark.exists() else (DID_NOT_RUN, "did not run")))


@contextlib.contextmanager
def _set(file: Path, value: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(value)
    try:
        yield
    finally:
        file.write_text(before or "\n")


def _crash(script: Path, fixtures: Fixtures) -> bool:
    with _set(_CORE_PATTERN, f"|{script}"):
        # A pipe receives the core with any limit except 1.
        limit = (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2
        subprocess.run(
            ["/bin/sh", "-c", "kill -SEGV $$"],
            check=False,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, limit),
        )
        time.sleep(_DETECTOR_SECONDS)
    return True


def _release(script: Path, fixtures: Fixtures) -> bool:
    """Makes the last process leave a cgroup of the test's own hierarchy."""
    if fixtures.hierarchy is None:
        return False
    root = Path(f"/proc/{os.getpid()}/fd/{fixtures.hierarchy}")
    cgroup = root / "released"
    cgroup.mkdir(exist_ok=True)
    with _set(root / "release_agent", str(script)):
        (cgroup / "notify_on_release").write_text("1")
        subprocess.run(["/bin/sh", "-c", f"echo $$ >{cgroup}/cgroup.procs"], check=True)
        time.sleep(0.2)  # a kernel worker starts the agent later, and reads the setting at that time
    with contextlib.suppress(OSError):
        cgroup.rmdir()
    return True


def _request(script: Path, fixtures: Fixtures) -> bool:
    if not _MODPROBE.exists():
        return False
    with _set(_MODPROBE, str(script)), contextlib.suppress(OSError):
        socket.socket(_NO_FAMILY, socket.SOCK_DGRAM).close()
    return True


def _known_helper(_: str, fixtures: Fixtures, image: Path, patience: float) -> Attempt:
    """Makes the kernel request a module by the node's own modprobe."""
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with contextlib.suppress(OSError):
        socket.socket(_NO_FAMILY, socket.SOCK_DGRAM).close()
    return Attempt("socket", at, 0, "worked 0")


HOST_ATTACKS: Mapping[str, Callable[[str, Fixtures, Path, float], Attempt]] = {
    "host-map": _map,
    "host-helper": _helper,
    "host-module": _known_helper,
}
