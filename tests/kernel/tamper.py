# SPDX-License-Identifier: Apache-2.0
"""The agent as a target: its location, what of it is reachable, and its state after an attack."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ringfence.bpf import _libbpf
from ringfence.bpf.maps import Map, open_map
from tests.support.agent import Agent
from tests.support.cgroups import PREFIX, Cgroup, hierarchies, new_cgroup
from tests.support.waiting import patience, wait_for

__all__ = [
    "DENIED", "KILLED", "LOOKS", "NAME", "SEEN", "TAMPER", "Outcome", "Target", "attack", "id_of",
    "target_of",
]  # fmt: skip

DENIED, KILLED, SEEN = "denied", "killed", "seen"
TAMPER, NAME, LOOKS = "agent-tamper", "agent-name", "agent-look"
LABEL = "victim"


class Outcome(NamedTuple):
    """The outcome of an attack for the attacker."""

    killed: bool
    result: int  # 0 or -errno; 1 if the process ended before it could report it

    @property
    def refused(self) -> bool:
        """True for EPERM, or EACCES as a file is refused."""
        return self.result in (-1, -13)


class Things(NamedTuple):
    """What must be unchanged after an attack that was refused."""

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
        """A thread of the agent other than the first."""
        return next(int(name) for name in os.listdir(f"/proc/{self.pid}/task") if int(name) != self.pid)

    @property
    def state(self) -> Path:
        return self.agent.directory / "state"

    @property
    def home(self) -> Path:
        """The agent's cgroup."""
        return self._cgroup.path

    @property
    def home_freezer(self) -> Path:
        """The file that freezes the agent's cgroup."""
        found = hierarchies()
        if "freezer" in found:
            return self._cgroup.paths["freezer"] / "freezer.state"
        return self._cgroup.paths["v2"] / "cgroup.freeze"

    @property
    def pins(self) -> Path:
        """The agent's directory of pins."""
        base = self.agent.directory / "bpf" / "ringfence"
        return max(base.iterdir(), key=lambda path: path.name)

    @property
    def a_link(self) -> Path:
        return next(iter(sorted((self.pins / "links").iterdir())))

    def bait(self) -> Path:
        """A file beside the agent's, made now, that an attacker could put in place of one."""
        path = self.agent.directory / "bait"
        path.write_text("{}")
        return path

    @property
    def address(self) -> str:
        """The address of some memory of the agent."""
        line = Path(f"/proc/{self.pid}/maps").read_text().splitlines()[0]
        return line.partition("-")[0]

    def map(self, name: str) -> Map:
        """Opens one of the agent's maps by its pin."""
        return open_map(_libbpf.get_pinned(str(self.pins / "maps" / name)))

    @property
    def map_id(self) -> int:
        return id_of(self.pins / "maps" / "generation")

    @property
    def link_id(self) -> int:
        return id_of(self.a_link)

    @property
    def program_id(self) -> int:
        """The third word of struct bpf_link_info is prog_id."""
        fd = _libbpf.get_pinned(str(self.a_link))
        try:
            return int(struct.unpack("=3I", _libbpf.info(fd, 12))[2])
        finally:
            os.close(fd)

    def revive(self) -> None:
        """Restart the agent if it was killed, and wait until it is the only one.

        A file that an attacker added to the policies before it was killed is removed: the agent
        does not start with it.
        """
        for path in self.policies.glob("mine.yaml"):
            path.unlink()
        if self.agent.status is not None:
            self.agent.stop()
            self.agent.start()
        wait_for(self.is_complete, "the agent to be complete")

    def is_complete(self) -> bool:
        """Returns True if there is exactly one set of pins, and the files beside it."""
        base = self.agent.directory / "bpf" / "ringfence"
        names = ("rules.json", "ticket")
        alone = base.is_dir() and len([path for path in base.iterdir() if path.name[0] != "."]) == 1
        return alone and all((self.state / name).exists() for name in names)

    def state_of_things(self) -> Things:
        """Returns the current state."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        process = (
            Path(f"/proc/{self.pid}/limits").read_text(),
            Path(f"/proc/{self.pid}/oom_score_adj").read_text(),
            Path(f"/proc/{self.pid}/cgroup").read_text(),
            stat[16],  # nice
            stat[38],  # scheduler
            os.sched_getaffinity(self.pid),
        )
        written = (*self.state.glob("*"), *self.policies.glob("*"))
        files = tuple((path.name, _identity(path)) for path in written)
        pins = tuple(sorted(str(path) for path in (self.agent.directory / "bpf").rglob("*")))
        return Things(self.pid, process, pins, files)


def id_of(pin: Path) -> int:
    """Returns the number of a pinned map or link: the second word of its info."""
    fd = _libbpf.get_pinned(str(pin))
    try:
        return int(struct.unpack("=2I", _libbpf.info(fd, 8))[1])
    finally:
        os.close(fd)


def _identity(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_nlink, found.st_size


@contextlib.contextmanager
def target_of(policies: Path, directory: Path, **flags: str) -> Iterator[Target]:
    """A target with these policies; removed completely at the end."""
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


def attack(cgroup: Cgroup, tamper: str, *words: object) -> Outcome:
    """Have a container try the attack. Returns the outcome."""
    done = cgroup.run([tamper, *map(str, words)], capture_output=True, text=True, timeout=patience(60))
    if done.returncode == -9:
        return Outcome(killed=True, result=1)
    assert done.returncode == 0, done
    return Outcome(killed=False, result=int(done.stdout.split()[1]))
