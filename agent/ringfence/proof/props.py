# SPDX-License-Identifier: Apache-2.0
"""What the attacks aim at, every piece of it made for the test: a process with namespaces of its own, a
cgroup, a socket that stands for a container runtime's, and a disk like a host's (an image on a loop device).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ringfence.containers.hierarchy import detect
from ringfence.proof.program import program

__all__ = ["Props", "new_disk", "new_props"]

_DISK_BYTES = 8 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Props(NamedTuple):
    """`disk` None: this machine has no loop device or no mkfs.ext4, and what needs it is not tried."""

    directory: Path
    helper: int  # pid of the process
    beside: Path  # the cgroup's directory
    socket: Path
    disk: Path | None


@contextlib.contextmanager
def new_props(directory: Path, name: str) -> Iterator[Props]:
    """All of them; gone after the block. `name` is the cgroup's."""
    with contextlib.ExitStack() as stack:
        disk: Path | None = None
        with contextlib.suppress(RuntimeError):
            disk = stack.enter_context(new_disk(directory))
        helper = stack.enter_context(_helper(disk or directory))
        beside = stack.enter_context(_cgroup(name))
        listener = stack.enter_context(_listener(directory / "daemon"))
        yield Props(directory, helper, beside, listener, disk)


@contextlib.contextmanager
def new_disk(directory: Path) -> Iterator[Path]:
    """Mount point of a small ext4 filesystem with files like a host's; gone after the block.

    Raises RuntimeError where there is no loop device.
    """
    image, where = directory / "disk.img", directory / "disk"
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    if not Path("/dev/loop-control").exists():
        _run("modprobe", "loop")
    _run("mkfs.ext4", "-q", "-F", str(image))
    try:
        # Inside, so that an interrupt between the mount and what follows leaves no mount behind.
        _run("mount", "-o", "loop", str(image), str(where))
        (where / "etc").mkdir()
        (where / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (where / "secret").write_text("a file of the host\n")
        yield where
    finally:
        # Lazily: containers of the test may still be going away with their copies of the mount.
        while where.is_mount():
            _run("umount", "--lazy", str(where))


def _run(*argv: str) -> None:
    try:
        got = subprocess.run(argv, check=False, capture_output=True, text=True, env={"PATH": _PATH})
    except OSError as error:
        raise RuntimeError(f"{argv[0]}: {error.strerror}") from error
    if got.returncode:
        raise RuntimeError(f"{' '.join(argv)}: status {got.returncode}: {got.stderr.strip()}")


@contextlib.contextmanager
def _helper(directory: Path) -> Iterator[int]:
    """A process of the host with namespaces of its own, whose program lies in `directory`."""
    executable = directory / "sleep"
    shutil.copy(program(), executable)
    process = subprocess.Popen(["unshare", "-m", "-u", "--", str(executable), "86400"])
    try:
        end = time.monotonic() + 30
        while Path(f"/proc/{process.pid}/exe").readlink() != executable:
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError("the helper process did not start")
            time.sleep(0.005)
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _cgroup(name: str) -> Iterator[Path]:
    """A cgroup beside the containers', in the hierarchy that says whose a task is."""
    path = detect().directory(f"/{name}")
    path.mkdir()
    try:
        yield path
    finally:
        end = time.monotonic() + 30
        while path.exists() and time.monotonic() < end:
            for pid in (path / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with contextlib.suppress(OSError):
                path.rmdir()
            time.sleep(0.01)


@contextlib.contextmanager
def _listener(root: Path) -> Iterator[Path]:
    """A unix socket that its server calls /run/docker.sock, below a root of its own; nobody answers."""
    (root / "run").mkdir(parents=True, exist_ok=True)
    path = root / "run/docker.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                os.chroot(root)
                server.bind("/run/docker.sock")
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            raise RuntimeError(f"no socket at {path}")
        server.listen(64)
        yield path
