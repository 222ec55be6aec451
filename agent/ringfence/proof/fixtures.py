# SPDX-License-Identifier: Apache-2.0
"""What the attacks aim at, every piece of it made for the test: processes of the host, a cgroup, sockets, a
disk like a host's (an image on a loop device), a FUSE; on machines that are thrown away a cgroup hierarchy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple, TypeVar

from ringfence.containers.hierarchy import detect
from ringfence.containers.host_addresses import node_addresses
from ringfence.proof.program import program
from ringfence_linux.syscalls import mount_detached

__all__ = ["Props", "new_disk", "new_props"]

_T = TypeVar("_T")

_DISK_BYTES = 8 << 20
#: of the stand-in for a kernel exploit
_EXPLOIT = Path("/dev/rfexploit")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Absent = RuntimeError  # what this machine cannot have: attacks that need it are not tried, and say so


class Props(NamedTuple):
    """None: this machine cannot have it, and what needs it is not tried."""

    directory: Path
    helper: int  # pid of a process of the host with namespaces of its own
    peer: int  # pid of one with the host's
    beside: Path  # the cgroup's directory
    socket: Path  # what its server calls /run/docker.sock
    hand: Path  # a socket that hands a directory of the disk to whoever connects
    disk: Path | None
    hierarchy: int | None  # descriptor of the root of a cgroup hierarchy of version 1 without controllers
    fuse: Path | None  # what looks like lxcfs
    address: str | None  # of the node


@contextlib.contextmanager
def new_props(directory: Path, name: str, *, disposable: bool = False) -> Iterator[Props]:
    """All of them; gone after the block. `name` is that of the cgroup and of the hierarchy.

    `disposable`: the machine is, and may be given an address, modules, and a device of a module.
    """
    with contextlib.ExitStack() as stack:

        def perhaps(prop: contextlib.AbstractContextManager[_T]) -> _T | None:
            with contextlib.suppress(Absent):
                return stack.enter_context(prop)
            return None

        if disposable:
            _prepare()
        disk = perhaps(new_disk(directory))
        programs = disk or directory
        shutil.copy(program(), programs / "attacks")
        yield Props(
            directory,
            stack.enter_context(_process(programs / "sleep", "unshare", "-m", "-u", "--")),
            stack.enter_context(_process(programs / "peer/sleep")),
            stack.enter_context(_cgroup(name)),
            stack.enter_context(_listener(directory / "daemon")),
            stack.enter_context(_giver(directory / "hand.sock", disk or directory)),
            disk,
            perhaps(_hierarchy(name)) if disposable else None,
            perhaps(_fuse(directory / "lxcfs")),
            _address(),
        )


def _address() -> str | None:
    return next((str(IPv4Address(n.address)) for n in sorted(node_addresses()) if n.family == 4), None)


def _prepare() -> None:
    """What a machine without network and with few modules loaded lacks."""
    module = os.environ.get("RINGFENCE_VM_MODULE", "")
    if module and not _EXPLOIT.exists():
        _run("insmod", module)
    if _EXPLOIT.exists():
        _EXPLOIT.chmod(0o666)
    with contextlib.suppress(RuntimeError):
        _run("modprobe", "binfmt_misc")
    if _address() is None:
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "address", "add", "192.0.2.77/32", "dev", "lo")


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
    with _mounted(where, "-o", "loop", str(image), str(where)):
        for name in ("etc", "var/log", "shared"):
            (where / name).mkdir(parents=True)
        (where / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (where / "secret").write_text("a file of the host\n")
        yield where


@contextlib.contextmanager
def _mounted(where: Path, *words: str) -> Iterator[None]:
    try:
        # Inside, so that an interrupt between the mount and what follows leaves no mount behind.
        _run("mount", *words)
        yield
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
def _process(executable: Path, *before: str) -> Iterator[int]:
    """A process of the host whose program is `executable`, which is called sleep and does so."""
    executable.parent.mkdir(exist_ok=True)
    shutil.copy(program(), executable)
    process = subprocess.Popen([*before, str(executable), "86400"])
    try:
        end = time.monotonic() + 30
        while Path(f"/proc/{process.pid}/exe").readlink() != executable:
            if time.monotonic() > end or process.poll() is not None:
                raise RuntimeError(f"{executable} did not start")
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
def _hierarchy(name: str) -> Iterator[int]:
    """A named hierarchy: it has a release_agent of its own, whatever else the host does with cgroups.

    In no mount namespace, where runtimes would find it; but every process has a line more in its
    /proc/PID/cgroup, at which some runtimes stumble.
    """
    try:
        fd = mount_detached("cgroup", none="", name=name)
    except OSError as error:
        raise RuntimeError(f"no hierarchy of cgroups: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _fuse(where: Path) -> Iterator[Path]:
    """A FUSE filesystem with a devices.allow, served by the attack program (attacks/fuse.c)."""
    where.mkdir()
    with subprocess.Popen([str(program()), "fuse", str(where)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise RuntimeError("no FUSE here")
            yield where
        finally:
            while where.is_mount():
                _run("umount", "--lazy", str(where))
            process.kill()


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


@contextlib.contextmanager
def _giver(path: Path, directory: Path) -> Iterator[Path]:
    """A socket that gives a descriptor of `directory` to everyone who connects, as a careless daemon does."""
    given = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(64)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client, contextlib.suppress(OSError):
                        socket.send_fds(client, [b"x"], [given])

        threading.Thread(target=serve, name="giver", daemon=True).start()
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            os.close(given)
