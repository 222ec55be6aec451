# SPDX-License-Identifier: Apache-2.0
"""The host that the adversary attacks: all of it is created by the tests.

A directory of the host, a volume as a kubelet gives it to a pod, host processes (one with its own
mounts, as services have), another container, and servers that give the secret to a client.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.adversary.container import Hostile, new_hostile
from tests.adversary.kinds import DOCKER, PRIV, Kind, container_config, new_root
from tests.adversary.program import Attempt, build
from tests.adversary.servers import Servers, running_servers
from tests.support import force

__all__ = ["Round", "Victim", "World", "new_round", "new_world"]

#: where the host's directories are in a privileged container
HOST = "/host"
_VOLUME = Path("/var/lib/kubelet/pods/rfadversary/volumes/kubernetes.io~empty-dir/data")


class Victim(NamedTuple):
    """A process of the host: where it keeps the secret."""

    process: subprocess.Popen[str]
    shared: str  # a range of /proc/PID/map_files: shared memory without a file
    code: str  # the same of an executable memfd
    pipe: int  # number of the descriptor that one can read the secret from

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid


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
        self._hostile: dict[Kind, tuple[Hostile, contextlib.ExitStack]] = {}

    def binds(self, kind: Kind) -> dict[str, Path]:
        """Returns the mounts of a container of that kind: path inside -> path outside."""
        given = {"/volume": _VOLUME, "/given": self.directory / "given", "/usr": Path("/usr")}
        if kind == PRIV:
            host = Path("/") if force.in_guest() else self.directory
            return {**given, HOST if force.in_guest() else f"{HOST}{self.directory}": host}
        return {**given, "/hostproc": Path("/proc")} if kind != DOCKER else given

    def hostile(self, kind: Kind) -> Hostile:
        """Returns the container of that kind; starts one if there is none."""
        if kind not in self._hostile:
            stack = contextlib.ExitStack()
            config = container_config(self.root, kind, self.binds(kind))
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
        self.attempt = Attempt(0, "")
        self.seconds = 0.0  # how long the attempt took

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

    def run(self, words: str) -> None:
        """Makes the attempt."""
        started = time.monotonic()
        self.attempt = self.hostile.run(words.format_map(self.words()))
        self.seconds = time.monotonic() - started

    def remove(self) -> None:
        """Removes the targets."""
        for place in (self.target, self.given):
            shutil.rmtree(place, ignore_errors=True)


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
            shared, code, pipe = process.stdout.readline().split()
            yield Victim(process, shared, code, int(pipe))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _volume() -> Iterator[None]:
    """The volume; the parents that this made are removed, too."""
    missing = [path for path in (_VOLUME, *_VOLUME.parents) if not path.exists()]
    _VOLUME.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(_VOLUME, ignore_errors=True)
        for path in missing[1:]:
            with contextlib.suppress(OSError):
                path.rmdir()


@contextlib.contextmanager
def new_world(work: Path) -> Iterator[World]:
    """Creates the host's part of the attacks, and removes it."""
    directory = Path("/run") / f"rfadversary-{secrets.token_hex(4)}"
    directory.mkdir()
    world = World(directory, work)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        (directory / "given").mkdir()
        stack.enter_context(_volume())
        world.program = build(work)
        world.root = stack.enter_context(new_root(work / "image", world.program))
        private = f"mount -t tmpfs none {directory}/given; echo {world.secret} > {directory}/given/own; "
        world.service = stack.enter_context(
            _victim(world, "unshare", "-m", "sh", "-c", f'{private}exec "$@"', "sh")
        )
        stack.callback(world.close)
        world.servers = stack.enter_context(running_servers(directory, world.secret))
        yield world
