# SPDX-License-Identifier: Apache-2.0
"""Attacks whose actor is no container: the kernel that runs a helper, a program of the host that loads code.

What sets the kernel's own helper is only done on machines that are thrown away; the setting is put back.
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

from ringfence.proof.fixtures import Props
from ringfence.proof.program import DID_NOT_RUN, Attempt, read_attempt

__all__ = ["ACTS", "act"]

_CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
_MODPROBE = Path("/proc/sys/kernel/modprobe")
_NO_FAMILY = 45  # AF_MCTP: the kernel looks for a module where it is not built in
_SECONDS = 2.0  # a helper has run by then, if it is to run at all
_LOOKED_AT = 3.0  # a detector looks once a second what the kernel would run


def act(words: str, props: Props, image: Path, patience: float) -> Attempt:
    """Do what `words` say. `image` is the root filesystem of the test's containers."""
    name, _, rest = words.partition(" ")
    return ACTS[name](rest, props, image, patience)


def _map(where: str, props: Props, image: Path, patience: float) -> Attempt:
    """A program on the disk maps a file for execution: `image PATH`, or `own`."""
    executable = (props.disk or props.directory) / "attacks"
    path = executable if where == "own" else image / where.removeprefix("image ").lstrip("/")
    got = subprocess.run([executable, "map", path], check=False, capture_output=True, timeout=60 * patience)
    return read_attempt(got.returncode, got.stdout.decode(errors="replace"))


def _helper(setting: str, props: Props, image: Path, patience: float) -> Attempt:
    """Make the kernel run a program of the test's, by core_pattern, release_agent or the path of modprobe."""
    mark = props.directory / "mark"
    mark.unlink(missing_ok=True)
    script = props.directory / "helper"
    script.write_text(f"#!/bin/sh\n: >{mark}\n")
    for path in (script, *list(script.parents)[:2]):
        path.chmod(0o755)
    way = {"core_pattern": _crash, "release_agent": _release, "modprobe": _request}[setting]
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    if not way(script, props):
        return Attempt(setting, at, 1, "failed ENOENT")
    end = time.monotonic() + _SECONDS * patience
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


def _crash(script: Path, props: Props) -> bool:
    with _set(_CORE_PATTERN, f"|{script}"):
        # A pipe gets the core whatever the limit is, unless that is 1.
        limit = (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2
        subprocess.run(
            ["/bin/sh", "-c", "kill -SEGV $$"],
            check=False,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, limit),
        )
        time.sleep(_LOOKED_AT)
    return True


def _release(script: Path, props: Props) -> bool:
    """The last process leaves a cgroup of the test's own hierarchy."""
    if props.hierarchy is None:
        return False
    root = Path(f"/proc/{os.getpid()}/fd/{props.hierarchy}")
    cgroup = root / "released"
    cgroup.mkdir(exist_ok=True)
    with _set(root / "release_agent", str(script)):
        (cgroup / "notify_on_release").write_text("1")
        subprocess.run(["/bin/sh", "-c", f"echo $$ >{cgroup}/cgroup.procs"], check=True)
        time.sleep(0.2)  # a worker of the kernel's starts it, and reads the setting then
    with contextlib.suppress(OSError):
        cgroup.rmdir()
    return True


def _request(script: Path, props: Props) -> bool:
    if not _MODPROBE.exists():
        return False
    with _set(_MODPROBE, str(script)), contextlib.suppress(OSError):
        socket.socket(_NO_FAMILY, socket.SOCK_DGRAM).close()
    return True


def _known_helper(_: str, props: Props, image: Path, patience: float) -> Attempt:
    """The kernel looks for a module by the program that the node has for it."""
    at = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with contextlib.suppress(OSError):
        socket.socket(_NO_FAMILY, socket.SOCK_DGRAM).close()
    return Attempt("socket", at, 0, "worked 0")


ACTS: Mapping[str, Callable[[str, Props, Path, float], Attempt]] = {
    "host-map": _map,
    "host-helper": _helper,
    "host-module": _known_helper,
}
