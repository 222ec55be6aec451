# SPDX-License-Identifier: Apache-2.0
"""The targets of the attacks, all created for the test.

Host processes, a cgroup, sockets, a disk like a host's (an image on a loop device), a FUSE
filesystem; on disposable machines also a cgroup hierarchy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
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

__all__ = ["Fixtures", "new_disk", "new_fixtures"]

_T = TypeVar("_T")

_DISK_BYTES = 8 << 20
#: device of the kernel module that simulates a kernel exploit
_EXPLOIT = Path("/dev/rfexploit")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Absent = RuntimeError  # this machine cannot provide a fixture: attacks that need it are reported as not run


class Fixtures(NamedTuple):
    """The fixtures. None: this machine cannot provide it, and attacks that need it are not run."""

    directory: Path
    helper: int  # pid of a host process with its own namespaces
    peer: int  # pid of a host process in the host's namespaces
    beside: Path  # directory of a cgroup beside the containers'
    socket: Path  # its server sees it as /run/docker.sock
    bus: Path  # and this as /run/dbus/system_bus_socket
    hand: Path  # a socket that sends a descriptor of a directory of the disk to every client
    disk: Path | None
    hierarchy: int | None  # root of a cgroup v1 hierarchy without controllers, as a descriptor
    fuse: Path | None  # mount point of a FUSE filesystem that looks like lxcfs
    address: str | None  # an address of the node
    terminal: int | None  # number of a terminal of /dev/pts

    @property
    def given(self) -> tuple[Path, ...]:
        """The directories of the disk that containers may write to."""
        return (self.disk / "var/log", self.disk / "shared") if self.disk else ()


@contextlib.contextmanager
def new_fixtures(directory: Path, name: str, *, disposable: bool = False) -> Iterator[Fixtures]:
    """Creates all fixtures and removes them after the block. `name` names the cgroup and the hierarchy.

    `disposable`: the machine may be given an address, kernel modules, and a device of a module.
    """
    with contextlib.ExitStack() as stack:

        def optional(fixture: contextlib.AbstractContextManager[_T]) -> _T | None:
            with contextlib.suppress(Absent):
                return stack.enter_context(fixture)
            return None

        if disposable:
            _prepare()
        disk = optional(new_disk(directory))
        programs = disk or directory
        shutil.copy(program(), programs / "attacks")
        yield Fixtures(
            directory,
            stack.enter_context(_process(programs / "sleep", "unshare", "-m", "-u", "--")),
            stack.enter_context(_process(programs / "peer/sleep")),
            stack.enter_context(_cgroup(name)),
            stack.enter_context(_listener(directory / "daemon", "/run/docker.sock")),
            stack.enter_context(_listener(directory / "bus", "/run/dbus/system_bus_socket")),
            stack.enter_context(_giver(directory / "giver", disk or directory)),
            disk,
            optional(_hierarchy(name)) if disposable else None,
            optional(_fuse(directory / "lxcfs")),
            _address(),
            optional(_terminal()),
        )


def _address() -> str | None:
    return next((str(IPv4Address(n.address)) for n in sorted(node_addresses()) if n.family == 4), None)


def _prepare() -> None:
    """Adds what a machine without network and with few loaded modules lacks."""
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
    """Mounts a small ext4 filesystem with files like a host's and yields its mount point.

    Not below /tmp, where mounts belong to containers (ringfence.daemon.tracking.host_trees).

    Raises RuntimeError if there is no loop device.
    """
    image = directory / "disk.img"
    with image.open("wb") as file:
        file.truncate(_DISK_BYTES)
    if not Path("/dev/loop-control").exists():
        _run("modprobe", "loop")
    _run("mkfs.ext4", "-q", "-F", str(image))
    with (
        tempfile.TemporaryDirectory(prefix="ringfence-disk-", dir="/run") as where_name,
        _mounted(where := Path(where_name), "-o", "loop", str(image), where_name),
    ):
        for name in ("etc", "var/log", "shared"):
            (where / name).mkdir(parents=True)
        (where / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
        (where / "secret").write_text("a file of the host\n")
        yield where


@contextlib.contextmanager
def _mounted(where: Path, *words: str) -> Iterator[None]:
    try:
        # Inside `try`: an interrupt right after the mount must not leave it behind.
        _run("mount", *words)
        yield
    finally:
        # Lazily: containers of the test that still exit may hold copies of the mount.
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
    """Starts a host process whose program is `executable`, the attack program under the name sleep.

    It holds a memfd and a pipe.
    """
    executable.parent.mkdir(exist_ok=True)
    shutil.copy(program(), executable)
    held = (os.memfd_create("rftest", 0), *os.pipe())
    process = subprocess.Popen([*before, str(executable), "86400"], pass_fds=held)
    try:
        for fd in held:
            os.close(fd)
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
    """Creates a cgroup beside the containers', in the hierarchy that assigns tasks to containers."""
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
    """Creates a named hierarchy, which has its own release_agent whatever cgroups the host uses.

    It is in no mount namespace, where runtimes would find it. But every process gets one more line in
    its /proc/PID/cgroup, which some runtimes cannot parse.
    """
    try:
        fd = mount_detached("cgroup", none="", name=name)
    except OSError as error:
        raise RuntimeError(f"cannot create a cgroup hierarchy: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """Makes a terminal in the host's devpts. Yields its number."""
    try:
        sides = os.openpty()
    except OSError as error:
        raise RuntimeError(f"cannot make a terminal: {error.strerror}") from error
    try:
        yield int(Path(os.ttyname(sides[1])).name)
    finally:
        for fd in sides:
            os.close(fd)


@contextlib.contextmanager
def _fuse(where: Path) -> Iterator[Path]:
    """Mounts a FUSE filesystem with a devices.allow, served by the attack program (attacks/fuse.c)."""
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


def _bind(server: socket.socket, root: Path, name: str) -> Path:
    """Binds a socket as its server would below another root. Returns its path."""
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            os.chroot(root)
            server.bind(name)
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"no socket at {path}")
    server.listen(64)
    return path


@contextlib.contextmanager
def _listener(root: Path, name: str) -> Iterator[Path]:
    """Creates a unix socket that its server knows by that name. Nothing accepts its connections."""
    with socket.socket(socket.AF_UNIX) as server:
        yield _bind(server, root, name)


@contextlib.contextmanager
def _giver(root: Path, directory: Path) -> Iterator[Path]:
    """Creates a socket that sends a descriptor of `directory` to every client, like a careless daemon.

    Its server knows it by a name that containers may connect to.
    """
    given = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX) as server:
        path = _bind(server, root, "/dev/log")

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
