# SPDX-License-Identifier: Apache-2.0
"""The host that the adversary attacks: all of it is created by the tests.

A directory of the host, a volume as a kubelet gives it to a pod, host processes (one with its own
mounts, as services have), another container, and servers that give the secret to a client.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import secrets
import shutil
import signal
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from tests.adversary.container import Hostile, new_hostile
from tests.adversary.kinds import DOCKER, PRIV, Kind, container_config, new_root
from tests.adversary.node import Node, mount_image, new_node
from tests.adversary.program import Attempt, build
from tests.adversary.servers import Servers, running_servers
from tests.benign.machine import overlaid
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.policies import PACK

__all__ = ["Round", "Victim", "World", "guarding", "kubelet_directory", "new_round", "new_world"]

#: where the host's directories are in a privileged container
HOST = "/host"
#: how long a race is tried
MILLISECONDS = os.environ.get("RINGFENCE_ADVERSARY_MILLISECONDS", "8000")
#: the root directory of another container, as an engine mounts it
_STORAGE = Path("/run/containerd/rfadversary")
_TIOCGPTN = 0x80045430
_VOLUME = Path("/var/lib/kubelet/pods/rfadversary/volumes/kubernetes.io~empty-dir/data")


class Victim(NamedTuple):
    """A process of the host: where it keeps the secret."""

    process: subprocess.Popen[str]
    shared: str  # a range of /proc/PID/map_files: shared memory without a file
    code: str  # the same of an executable memfd
    pipe: int  # number of the descriptor that one can read the secret from
    memfd: int  # number of the descriptor of `code`

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def memory(self) -> str:
        """Returns what is in `code` now."""
        return Path(f"/proc/{self.pid}/map_files/{self.code}").read_bytes().decode(errors="replace")


class World:
    """What the attempts have in common."""

    def __init__(self, directory: Path, work: Path) -> None:
        self.directory = directory  # on the host, and so in its mounts
        self.work = work  # files of the harness itself
        self.secret = secrets.token_hex(12)
        self.program, self.root = Path(), Path()
        self.service: Victim
        self.other: Hostile | None = None
        self.servers: Servers
        self.node: Node | None = None  # in virtual machines only
        self._hostile: dict[Kind, tuple[Hostile, contextlib.ExitStack]] = {}

    def binds(self, kind: Kind) -> dict[str, Path]:
        """Returns the mounts of a container of that kind: path inside -> path outside."""
        given = {"/volume": _VOLUME, "/given": self.directory / "given"}
        given |= {f"/usr/{name}": Path(f"/usr/{name}") for name in ("bin", "lib", "lib64", "sbin")}
        if kind == PRIV:
            host = Path("/") if force.in_guest() else self.directory
            given |= {
                "/engine": _STORAGE,
                "/hostcgroup": Path("/sys/fs/cgroup"),
                "/hostpts": Path("/dev/pts"),
            }
            return {**given, HOST if force.in_guest() else f"{HOST}{self.directory}": host}
        return {**given, "/hostproc": Path("/proc")} if kind != DOCKER else given

    def hostile(self, kind: Kind) -> Hostile:
        """Returns the container of that kind; starts one if there is none."""
        if kind not in self._hostile:
            stack = contextlib.ExitStack()
            network = self.node.network if self.node else ""
            config = container_config(self.root, kind, self.binds(kind), network)
            made = stack.enter_context(new_hostile(self.work / "containers", config, f"adv-{kind}"))
            self._hostile[kind] = made, stack
        return self._hostile[kind][0]

    def discard(self, kind: Kind) -> None:
        """Removes the container of that kind; the next attack gets a new one."""
        if kind in self._hostile:
            self._hostile.pop(kind)[1].close()

    def close(self) -> None:
        """Removes all containers."""
        for kind in list(self._hostile):
            self.discard(kind)


class Round:
    """One attempt of one attack, with targets of its own. Effects are read from here."""

    def __init__(self, world: World, hostile: Hostile, victim: Victim) -> None:
        self.world, self.hostile, self.victim = world, hostile, victim
        self.token = secrets.token_hex(8)
        self.target = world.directory / f"target-{self.token}"  # of the host
        self.given = _VOLUME / self.token  # of the container
        self.cgroup = Cgroup(f"{PREFIX}victim-{self.token}")  # of the host, with the victim
        self.terminal = self._user = -1  # of the host: the side that is not the user's, and the other
        self.attempt = Attempt(0, "")
        self.clock_before = self.clock()
        self.longest_open = 0.0  # seconds, of the target by the host while the attempt was made

    @staticmethod
    def clock() -> float:
        """Returns the seconds from the machine's start to 1970, by its two clocks."""
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def node(self) -> Node:
        """The part of the host that is there in virtual machines only."""
        assert self.world.node is not None
        return self.world.node

    def words(self) -> dict[str, str]:
        """Returns what the words of an attack may name."""
        other = self.world.other
        return {
            "token": self.token,
            "target": str(self.target),  # on the host
            "host": f"{HOST}{self.target}",  # the same, where the container has the host's directory
            "volume": f"/volume/{self.token}",
            "victim": str(self.victim.pid),
            "shared": self.victim.shared,
            "code": self.victim.code,
            "pipe": str(self.victim.pipe),
            "memfd": str(self.victim.memfd),
            "given": str(self.given),
            "terminal": f"/hostpts/{_number(self.terminal)}",
            "rootfs": str(_STORAGE / "rootfs"),
            "cgroup": f"/hostcgroup/{self.cgroup.paths['v2'].relative_to('/sys/fs/cgroup')}",
            "outercgroup": str(self.cgroup.paths["v2"]),
            "owncgroup": f"/hostcgroup/{self.hostile.cgroup.paths['v2'].relative_to('/sys/fs/cgroup')}",
            "milliseconds": MILLISECONDS,
            "disk": str(self.world.node.disk) if self.world.node else "",
            **{name: str(_majors().get(name, 0)) for name in ("rtc", "dma_heap")},
            "service": str(self.world.service.pid),
            "other": str(other.pids()[0]) if other else "0",
            **self.world.servers.words(),
        }

    def prepare(self) -> None:
        """Creates the same files for the attack and for its twin."""
        for place in (self.target, self.given):
            place.mkdir()
            (place / "below").mkdir()
            for name in ("file", "second"):
                (place / name).write_text("untouched\n")
        self.cgroup.create().add(self.victim.pid)
        self.terminal, self._user = pty.openpty()
        for place in (self.target, self.given):
            os.mknod(place / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        if self.world.node:
            self.world.node.scripts(self.given)
            self.world.node.upcalls.unlink(missing_ok=True)

    def run(self, words: str) -> None:
        """Makes the attempt, while the host opens its target again and again."""
        self.clock_before = self.clock()
        over = threading.Event()
        toucher = threading.Thread(target=self._touch, args=(over,))
        toucher.start()
        try:
            self.attempt = self.hostile.run(words.format_map(self.words()))
        finally:
            over.set()
            toucher.join()

    def _touch(self, over: threading.Event) -> None:
        while not over.wait(0.05):
            started = time.monotonic()
            with contextlib.suppress(OSError), (self.target / "file").open():
                pass
            self.longest_open = max(self.longest_open, time.monotonic() - started)

    def remove(self) -> None:
        """Removes the targets, and ends the victim."""
        self.cgroup.remove()
        if self.terminal >= 0:
            os.close(self.terminal)
            os.close(self._user)
        for place in (self.target, self.given):
            shutil.rmtree(place, ignore_errors=True)


def _number(terminal: int) -> int:
    """Returns the number of a terminal, by its other side; -1: there is none."""
    number = struct.pack("i", -1)
    return struct.unpack("i", fcntl.ioctl(terminal, _TIOCGPTN, number))[0] if terminal >= 0 else -1


@contextlib.contextmanager
def new_round(world: World, hostile: Hostile) -> Iterator[Round]:
    """Targets and a victim for one attempt."""
    with _victim(world) as victim:
        made = Round(world, hostile, victim)
        try:
            made.prepare()
            yield made
        finally:
            made.remove()


@contextlib.contextmanager
def _victim(world: World, *before: str) -> Iterator[Victim]:
    argv = [*before, str(world.program), "victim", world.secret]
    environment = {"RFADVERSARY_SECRET": world.secret}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            shared, code, pipe, memfd = process.stdout.readline().split()
            yield Victim(process, shared, code, int(pipe), int(memfd))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _majors() -> dict[str, int]:
    """Returns driver -> major number of its character devices."""
    lines = Path("/proc/devices").read_text().partition("Block")[0].splitlines()
    return {name: int(number) for number, name in (line.split() for line in lines[1:] if line)}


@contextlib.contextmanager
def kubelet_directory() -> Iterator[None]:
    """The directory of the volume, as it is on a node before an agent starts."""
    missing = [path for path in (_VOLUME, *_VOLUME.parents) if not path.exists()]
    _VOLUME.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(_VOLUME, ignore_errors=True)
        for path in missing[1:]:
            with contextlib.suppress(OSError):
                path.rmdir()


def guarding(directory: Path, **flags: str) -> AbstractContextManager[Agent]:
    """The agent that is attacked: the whole pack in enforce mode, self-defence on. `flags`: more flags."""
    patterns, given = [f"{PREFIX}adv-*"], {"self-defence": "deny", **flags}
    return running_agent(
        directory,
        policies=[PACK],
        mode="enforce",
        patterns=patterns,
        flags=given,
    )


@contextlib.contextmanager
def _volume(image: Path) -> Iterator[None]:
    """The volume; in a virtual machine a disk's."""
    with kubelet_directory():
        try:
            if force.in_guest():
                mount_image(image, _VOLUME)
            yield
        finally:
            while os.path.ismount(_VOLUME):
                subprocess.run(["umount", "--lazy", str(_VOLUME)], check=True)


@contextlib.contextmanager
def _storage(work: Path) -> Iterator[None]:
    """A root directory of a container, which no container uses."""
    missing = not _STORAGE.parent.exists()
    image = work / "lower"
    (image / "etc").mkdir(parents=True)
    (image / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    try:
        with overlaid(image, work, "8m") as root, _bound(root, _STORAGE / "rootfs"):
            yield
    finally:
        for path in (_STORAGE / "rootfs", _STORAGE, *([_STORAGE.parent] if missing else [])):
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def _bound(what: Path, where: Path) -> Iterator[None]:
    where.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(what), str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


@contextlib.contextmanager
def new_world(work: Path) -> Iterator[World]:
    """Creates the host's part of the attacks, and removes it."""
    work.mkdir(exist_ok=True)
    directory = Path("/run") / f"rfadversary-{secrets.token_hex(4)}"
    directory.mkdir()
    world = World(directory, work)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        for name in ("given", "private"):
            (directory / name).mkdir()
        (directory / "secret").write_text(world.secret)
        stack.enter_context(_volume(work / "volume.img"))
        stack.enter_context(_storage(work / "storage"))
        world.program = build(work)
        world.root = stack.enter_context(new_root(work / "image", world.program))
        private = f"mount -t tmpfs none {directory}/private; echo {world.secret} > {directory}/private/own; "
        apart = ("unshare", "--mount", "--uts", "sh", "-c", f'{private}exec "$@"', "sh")
        world.service = stack.enter_context(_victim(world, *apart))
        world.servers = stack.enter_context(running_servers(directory, world.secret))
        if force.in_guest():
            world.node = stack.enter_context(new_node(directory, world.servers))
        stack.callback(world.close)
        config = container_config(world.root, DOCKER, world.binds(DOCKER))
        world.other = stack.enter_context(new_hostile(work / "containers", config, "adv-other"))
        yield world
