# SPDX-License-Identifier: Apache-2.0
"""Private cgroups, on v1, v2 and hybrid hosts.

Every one is named `rftest-...`, is directly below the root of each hierarchy, and is removed with
its contents. Nothing here touches any other cgroup.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_for

__all__ = ["PREFIX", "Cgroup", "hierarchies", "is_pure_v2", "new_cgroup", "remove_everywhere", "remove_trees"]

# Two runs on one machine use different prefixes, or the agents of one would act on the containers
# of the other.
PREFIX = os.environ.get("RINGFENCE_TEST_PREFIX", "rftest-")
# cpuset needs cpus and mems written before a task may enter: excluded.
CONTROLLERS = ("devices", "pids", "memory", "freezer", "cpu", "cpuacct", "blkio")


@functools.cache
def hierarchies() -> dict[str, Path]:
    """Returns the mounted hierarchies: a v1 controller's name, or `v2`, to its mount point."""
    found: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), after.split()[:3]
        if kind == "cgroup2":
            found.setdefault("v2", Path(fields[4]))
        elif kind == "cgroup":
            for option in options.split(","):
                if option in CONTROLLERS:
                    found.setdefault(option, Path(fields[4]))
    return found


def remove_everywhere(name: str) -> None:
    """Remove cgroups of that name that a runtime left below the root of any hierarchy.

    Runtimes remove a container's own cgroup, not the parents that they made, nor those of cpuset
    and systemd.
    """
    assert name.startswith("rftest-")
    root = Path("/sys/fs/cgroup")
    found = [root / name, *root.glob(f"*/{name}")]
    # Other engines leave plain directories beside the hierarchies: no cgroups, and not removable so.
    remove_trees([path for path in found if (path.parent / "cgroup.procs").exists()], name)


def remove_trees(tops: Sequence[Path], name: str) -> None:
    """Remove cgroups with all below them, of several
    hierarchies; waits for their last tasks to end.
    """

    def gone() -> bool:
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
        return not any(top.is_dir() for top in tops)

    wait_for(gone, f"{name} to be removed")


def is_pure_v2() -> bool:
    """Returns True if no v1 controller is mounted."""
    return set(hierarchies()) == {"v2"}


class Cgroup:
    """Directories of the same name below the root of every hierarchy."""

    def __init__(self, name: str) -> None:
        if not name.startswith(PREFIX):
            raise ValueError(f"a test's cgroup must be named {PREFIX}..., not {name!r}")
        self.name = name
        self.paths = {kind: mount / name for kind, mount in hierarchies().items()}

    @property
    def path(self) -> Path:
        """The directory in the hierarchy that identifies
        containers: v1 devices where mounted, else v2.
        """
        return self.paths.get("devices", self.paths["v2"])

    @property
    def id(self) -> int:
        """The cgroup id (inode number) of `path`."""
        return self.path.stat().st_ino

    def create(self) -> Cgroup:
        """Make the directories."""
        for path in set(self.paths.values()):
            path.mkdir(exist_ok=True)
        return self

    def child(self, name: str) -> Cgroup:
        """A cgroup below this one, made now."""
        below = Cgroup(f"{self.name}/{name}")
        return below.create()

    def add(self, pid: int) -> None:
        """Move a process into it, in every hierarchy."""
        for path in set(self.paths.values()):
            (path / "cgroup.procs").write_text(f"{pid}\n")

    def pids(self) -> list[int]:
        """Returns the processes in it and below it."""
        found: set[int] = set()
        for path in set(self.paths.values()):
            for directory, _, _ in os.walk(path):
                with contextlib.suppress(OSError):
                    found.update(int(line) for line in (Path(directory) / "cgroup.procs").read_text().split())
        return sorted(found)

    def command(self, argv: Sequence[str], *, armed: bool = True) -> list[str]:
        """Returns an argv that joins the cgroup, then executes `argv`.

        armed: in a mount namespace of its own, so that its exec arms it, like a container's first
        process.
        """
        join = "".join(f"echo $$ > {path}/cgroup.procs; " for path in sorted(set(self.paths.values())))
        own = "exec unshare -m -- " if armed else "exec "
        return ["/bin/sh", "-ec", join + own + '"$@"', "sh", *argv]

    def popen(self, argv: Sequence[str], *, armed: bool = True, **options: Any) -> subprocess.Popen[Any]:
        """Start `argv` inside."""
        return subprocess.Popen(self.command(argv, armed=armed), **options)

    def run(
        self, argv: Sequence[str], *, armed: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Run `argv` inside to its end."""
        return subprocess.run(self.command(argv, armed=armed), check=False, **options)

    def _kill_at_once(self) -> None:
        """A process that forks faster than it is killed must
        not fork, and is killed by the kernel (from 5.14).
        """
        for path in set(self.paths.values()):
            for name, value in (("pids.max", "0"), ("cgroup.kill", "1")):
                if (path / name).exists():
                    with contextlib.suppress(OSError):
                        (path / name).write_text(value)

    def _thaw(self) -> None:
        """What is frozen by version 1 ends only afterwards."""
        for directory, _, _ in os.walk(self.paths.get("freezer", "")):
            with contextlib.suppress(OSError):
                (Path(directory) / "freezer.state").write_text("THAWED")

    def remove(self) -> None:
        """Kill the processes inside and remove the directories, children first."""

        def empty() -> bool:
            self._kill_at_once()
            self._thaw()
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for path in set(self.paths.values()):
                for directory, _, _ in os.walk(path, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(directory)
            return not any(path.exists() for path in self.paths.values())

        wait_for(empty, f"cgroup {self.name} to go away")


@contextlib.contextmanager
def new_cgroup(label: str = "cgroup") -> Iterator[Cgroup]:
    """A cgroup `rftest-LABEL-xxxxxx` for the time of a `with` block."""
    cgroup = Cgroup(f"{PREFIX}{label}-{secrets.token_hex(3)}")
    try:
        yield cgroup.create()
    finally:
        cgroup.remove()
