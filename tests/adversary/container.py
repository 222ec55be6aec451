# SPDX-License-Identifier: Apache-2.0
"""A container whose first process runs the adversary's attempts, one line each."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.proof.served import Served
from tests.adversary.program import KILLED, Attempt
from tests.support.cgroups import PREFIX, Cgroup
from tests.support.waiting import patience

__all__ = ["Hostile", "new_hostile"]


class Hostile:
    """The container, and the pipes of its first process."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self.cgroup = Cgroup(name)
        self._served = Served()

    def start(self, config: dict[str, Any]) -> None:
        """`runc run --detach`, and waits until it takes commands."""
        config["linux"]["cgroupsPath"] = f"/{self.name}"
        self.directory.mkdir(parents=True)
        (self.directory / "config.json").write_text(json.dumps(config))
        log = self.directory / "runc.log"
        argv = ["runc", "--log", str(log), "run", "--detach", "--bundle", str(self.directory), self.name]
        with self._served.streams() as (theirs_in, theirs_out):
            got = subprocess.run(
                argv, stdin=theirs_in, stdout=theirs_out, stderr=subprocess.DEVNULL, check=False,
                timeout=patience(60),
            )  # fmt: skip
        if got.returncode:
            raise AssertionError(f"runc did not start {self.name}: {log.read_text()[-1500:]}")
        self._served.line("ready", patience(30))

    def run(self, words: str, *, seconds: float = 30.0) -> Attempt:
        """Makes one attempt and returns how it ended. That the container is gone counts as killed."""
        said: list[str] = []
        try:
            self._served.send(words)
            while not (line := self._served.line("", patience(seconds))).startswith("end "):
                said.append(line)
        except (EOFError, BrokenPipeError):
            return Attempt(KILLED, "\n".join(said))
        return Attempt(int(line.split()[1]), "\n".join(said))

    def pids(self) -> list[int]:
        """Its processes, by their numbers on the host."""
        return self.cgroup.pids()

    def remove(self) -> None:
        """Deletes the container and what is left of it."""
        self._served.close()
        argv = ["runc", "delete", "--force", self.name]
        subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=patience(60))
        self.cgroup.remove()


@contextlib.contextmanager
def new_hostile(directory: Path, config: dict[str, Any], label: str = "adv") -> Iterator[Hostile]:
    """Runs a container PREFIX-LABEL-xxxxxx for the time of the block."""
    name = f"{PREFIX}{label}-{secrets.token_hex(4)}"
    hostile = Hostile(name, directory / name)
    try:
        hostile.start(config)
        yield hostile
    finally:
        hostile.remove()
