# SPDX-License-Identifier: Apache-2.0
"""The agent as a target: where it lies, what of it can be reached, and how it is after an attack."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.bpf import _libbpf
from tests.support.agent import Agent
from tests.support.cgroups import PREFIX, Cgroup, hierarchies, new_cgroup
from tests.support.waiting import patience, wait_for

__all__ = [
    "DENIED", "KILLED", "LOOKS", "NAME", "SEEN", "TAMPER", "Came", "Target", "attack", "target_of",
]  # fmt: skip

DENIED, KILLED, SEEN = "denied", "killed", "seen"
TAMPER, NAME, LOOKS = "agent-tamper", "agent-name", "agent-look"
LABEL = "victim"


class Came(NamedTuple):
    """What an attack came to for who made it."""

    killed: bool
    result: int  # 0 or -errno; 1 where the process did not come to say it

    @property
    def refused(self) -> bool:
        """EPERM, or EACCES as a file is refused."""
        return self.result in (-1, -13)


class Things(NamedTuple):
    """What must be the same after an attack that was refused."""

    pid: int
    process: tuple[Any, ...]
    pins: tuple[str, ...]
    files: tuple[Any, ...]


class Target:
    """An agent that runs in a cgroup and a process group of its own."""

    def __init__(self, agent: Agent, home: Cgroup, policies: Path) -> None:
        self.agent, self._cgroup, self.policies = agent, home, policies
        self.cgroups: list[Path] = []  # of the attacker's container

    @property
    def pid(self) -> int:
        return self.agent.pid

    @property
    def thread(self) -> int:
        """A thread of its that is not the first one."""
        return next(int(name) for name in os.listdir(f"/proc/{self.pid}/task") if int(name) != self.pid)

    @property
    def state(self) -> Path:
        return self.agent.directory / "state"

    @property
    def home(self) -> Path:
        """Its cgroup."""
        return self._cgroup.path

    @property
    def home_freezer(self) -> Path:
        """The file that freezes its cgroup."""
        found = hierarchies()
        if "freezer" in found:
            return self._cgroup.paths["freezer"] / "freezer.state"
        return self._cgroup.paths["v2"] / "cgroup.freeze"

    @property
    def pins(self) -> Path:
        """Its directory of pins."""
        base = self.agent.directory / "bpf" / "ringfence"
        return max(base.iterdir(), key=lambda path: path.name)

    @property
    def a_link(self) -> Path:
        return next(iter(sorted((self.pins / "links").iterdir())))

    @property
    def address(self) -> str:
        """Of some memory of its."""
        line = Path(f"/proc/{self.pid}/maps").read_text().splitlines()[0]
        return line.partition("-")[0]

    def _id(self, pin: Path) -> int:
        fd = _libbpf.get_pinned(str(pin))
        try:
            return int(struct.unpack("=2I", _libbpf.info(fd, 8))[1])
        finally:
            os.close(fd)

    @property
    def map_id(self) -> int:
        return self._id(self.pins / "maps" / "generation")

    @property
    def link_id(self) -> int:
        return self._id(self.a_link)

    @property
    def program_id(self) -> int:
        """struct bpf_link_info: prog_id is the third word."""
        fd = _libbpf.get_pinned(str(self.a_link))
        try:
            return int(struct.unpack("=3I", _libbpf.info(fd, 12))[2])
        finally:
            os.close(fd)

    def revive(self) -> None:
        """Start it anew where it was killed, and wait until it is the only one.

        A file that was made among its policies before its maker was killed is removed: no agent starts with
        it.
        """
        for path in self.policies.glob("mine.yaml"):
            path.unlink()
        if self.agent.status is not None:
            self.agent.stop()
            self.agent.start()
        wait_for(self.is_whole, "the agent to be whole")

    def is_whole(self) -> bool:
        """One set of pins, and the files beside it."""
        base = self.agent.directory / "bpf" / "ringfence"
        names = ("rules.json", "ticket")
        alone = base.is_dir() and len([path for path in base.iterdir() if path.name[0] != "."]) == 1
        return alone and all((self.state / name).exists() for name in names)

    def state_of_things(self) -> Things:
        """As it is now."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        process = (
            Path(f"/proc/{self.pid}/limits").read_text(),
            Path(f"/proc/{self.pid}/oom_score_adj").read_text(),
            Path(f"/proc/{self.pid}/cgroup").read_text(),
            stat[16],  # nice
            stat[38],  # scheduler
            os.sched_getaffinity(self.pid),
        )
        ours = (*self.state.glob("*"), *self.policies.glob("*"))
        files = tuple((path.name, _identity(path)) for path in ours)
        pins = tuple(sorted(str(path) for path in (self.agent.directory / "bpf").rglob("*")))
        return Things(self.pid, process, pins, files)


def _identity(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_nlink, found.st_size


@contextlib.contextmanager
def target_of(policies: Path, directory: Path, **flags: str) -> Iterator[Target]:
    """A target with these policies; nothing of it stays."""
    chosen = {"pins": str(directory / "agent" / "bpf"), "containers-adopt": "yes", **flags}
    with new_cgroup("guarded") as home:
        agent = Agent(directory / "agent", policies=[policies], patterns=[f"{PREFIX}{LABEL}*"], flags=chosen)
        bare = list(agent.argv)
        # a soft limit below the hard one, as services have it: the agent raises it by itself
        agent.argv = home.command(["setsid", "prlimit", "--nofile=1024:", *bare], armed=False)
        try:
            agent.start()
            yield Target(agent, home, policies)
        finally:
            agent.stop()
            subprocess.run([*bare, "--uninstall"], capture_output=True, timeout=patience(60), check=False)


def attack(cgroup: Cgroup, tamper: str, *words: object) -> Came:
    """Have a container try it."""
    done = cgroup.run([tamper, *map(str, words)], capture_output=True, text=True, timeout=patience(60))
    if done.returncode == -9:
        return Came(killed=True, result=1)
    assert done.returncode == 0, done
    return Came(killed=False, result=int(done.stdout.split()[1]))
