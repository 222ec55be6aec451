# SPDX-License-Identifier: Apache-2.0
"""One boot of one kernel to run one command, and everything that was started for it gone afterwards."""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tools.vm.catalogue import Prepared
from tools.vm.cpio import Archive
from tools.vm.prepare import build_init
from tools.vm.qemu import machine_command, virtiofsd_command

__all__ = ["Job", "Outcome", "run"]

# Directories of the guest's own, although the host has some of that name.
PRIVATE = ("/tmp", "/var/tmp", "/var/lib/containers", "/var/lib/docker", "/var/lib/containerd")
NICE = "RINGFENCE_VM_NICE"  # how much a guest gives way to others, 10 by default; 0 on a machine that is busy
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
}


class Job(NamedTuple):
    """What to run in the guest. `shares` are host directories, writable in the guest at the same path."""

    argv: Sequence[str]
    cwd: Path = Path("/")
    environment: Mapping[str, str] = ENVIRONMENT
    shares: Sequence[Path] = ()
    timeout: float = 600.0  # seconds, from power-on
    memory: int = 2048  # MiB
    silence: float = math.inf  # seconds from power-on within which something is printed
    append: str = ""  # words for the kernel's command line


class Outcome(NamedTuple):
    """How it ended: the command's status, or None with the reason why the machine gave none."""

    status: int | None
    reason: str
    seconds: float
    console: str


def run(kernel: Prepared, job: Job, *, echo: IO[bytes] | None = None, verbose: bool = False) -> Outcome:
    """Boot, run, power off. The console goes to `echo` as it comes and into the outcome (its last 100 kB)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="rfvm-") as directory, contextlib.ExitStack() as stack:
        work = Path(directory)
        tags = {"hostroot": kernel.userland} | {f"share{n}": path for n, path in enumerate(job.shares)}
        if kernel.userland != Path("/"):  # which does not hold the cache
            tags["modules"] = kernel.modules
        sockets = {tag: stack.enter_context(_file_server(work, tag, path)) for tag, path in tags.items()}
        (work / "initrd").write_bytes((kernel.directory / "initrd").read_bytes() + _orders(kernel, job, tags))
        argv = machine_command(
            kernel, work / "initrd", work / "report", sockets,
            memory=job.memory, verbose=verbose, append=job.append,
        )  # fmt: skip
        machine = stack.enter_context(_process(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        console, expired = _follow(machine, started + job.timeout, started + job.silence, echo)
        report = (work / "report").read_text() if (work / "report").exists() else ""
    status, reason = _verdict(report, machine.returncode, expired=expired)
    return Outcome(status, reason, time.monotonic() - started, console)


def _verdict(report: str, qemu_status: int | None, *, expired: bool) -> tuple[int | None, str]:
    if expired:
        return None, "did not end in time"
    found = re.match(r"rc=(\d+)\s*(.*)", report)
    if found is None:
        return None, f"powered off without a report (QEMU's status {qemu_status})"
    if found[2]:
        return None, f"did not come up: {found[2].strip()}"
    return int(found[1]), ""


def _follow(
    machine: subprocess.Popen[bytes], end: float, silent_until: float, echo: IO[bytes] | None
) -> tuple[str, bool]:
    """Read the console until the machine is off or the time is up: (last part of it, ran out of time).

    The time is also up at `silent_until` if the console is empty until then.
    """
    assert machine.stdout is not None
    os.set_blocking(machine.stdout.fileno(), False)
    text = b""
    while True:
        over = machine.poll() is not None
        expired = time.monotonic() > (end if text else min(end, silent_until))
        while piece := machine.stdout.read(65536) or b"":
            text = (text + piece)[-100_000:]
            if echo is not None:
                echo.write(piece)
                echo.flush()
        if over or expired:
            return text.decode(errors="replace"), expired and not over
        time.sleep(0.05)


@contextlib.contextmanager
def _process(argv: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    # Emulation takes every cycle that it can get: leave the machine usable. And none outlives us.
    prefix = ["nice", "-n", os.environ.get(NICE, "10"), "setpriv", "--pdeathsig", "KILL", "--"]
    process = subprocess.Popen([*prefix, *argv], stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _file_server(work: Path, tag: str, directory: Path) -> Iterator[Path]:
    """virtiofsd for one directory; gives its socket. The root never changes for a guest: it caches it all."""
    socket = work / tag
    argv = virtiofsd_command(socket, directory, cache="always" if tag == "hostroot" else "auto")
    log = work / f"{tag}.log"
    with log.open("wb") as file, _process(argv, stdout=file, stderr=file) as server:
        end = time.monotonic() + 10
        while not socket.exists():
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"virtiofsd for {directory} did not start: {log.read_text()[-500:]}")
            time.sleep(0.01)
        yield socket


def _orders(kernel: Prepared, job: Job, tags: Mapping[str, Path]) -> bytes:
    """The second archive of the initrd: what init.c is to do."""
    lines = [f"cwd={job.cwd}"]
    if "modules" not in tags:
        lines.append(f"modules={kernel.modules.resolve()}")
    lines += [f"tmpfs={path}" for path in PRIVATE]
    lines += [f"keep={path}" for path in (job.cwd,) if str(path).startswith(PRIVATE)]
    lines += [f"share={tag}:{path}" for tag, path in tags.items() if tag.startswith("share")]
    lines += [f"share={tag}:/lib/modules/{kernel.release}" for tag in tags if tag == "modules"]
    archive = Archive()
    archive.add("init", stat.S_IFREG | 0o755, build_init(kernel.machine).read_bytes())
    archive.add("cmd", stat.S_IFDIR | 0o755)
    words = {"argv": job.argv, "env": [f"{key}={value}" for key, value in job.environment.items()]}
    words["modules"] = kernel.drivers
    archive.add("cmd/conf", stat.S_IFREG | 0o644, ("\n".join(lines) + "\n").encode())
    for name, values in words.items():
        archive.add(f"cmd/{name}", stat.S_IFREG | 0o644, b"".join(word.encode() + b"\0" for word in values))
    return archive.finish()
