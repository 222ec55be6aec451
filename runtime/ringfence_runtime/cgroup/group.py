# SPDX-License-Identifier: Apache-2.0
"""The cgroup of one container: created, limited, joined, frozen, killed and removed in all hierarchies."""

from __future__ import annotations

import errno
import os
import time

from ringfence_linux.cgroups import Hierarchies
from ringfence_runtime import log
from ringfence_runtime.cgroup import removal
from ringfence_runtime.cgroup.hierarchy import detect, read, write
from ringfence_runtime.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.spec.resources import Resources

__all__ = ["Cgroup"]

_UNIFIED = ""
_ATTEMPTS = 8


class Cgroup:
    """Directories by hierarchy: the key is the version 1 controller list, or `` for version 2."""

    __slots__ = ("claimed", "dirs", "foreign", "made", "path")

    def __init__(self, path: str, dirs: dict[str, str], foreign: list[str] | None = None) -> None:
        self.path = path
        self.dirs = dirs
        self.foreign = foreign or []  # keys of `dirs` that existed before
        self.claimed = foreign is not None  # True if its processes are the container's
        self.made: list[str] = []

    @classmethod
    def at(cls, path: str, hierarchies: Hierarchies | None = None) -> Cgroup:
        """Returns the cgroup `path` (from the root of every hierarchy); nothing is created yet."""
        found = hierarchies or detect()
        clean = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        if clean == "/":
            raise Error(f"cgroup path {path!r} is the root of the hierarchy")
        dirs = {key: mount + clean for key, mount in found.v1.items()}
        if found.unified:
            dirs[_UNIFIED] = found.unified + clean
        return cls(clean, dirs)

    @classmethod
    def none(cls) -> Cgroup:
        """Returns an object without a cgroup: the container stays in its starter's cgroup."""
        return cls("", {}, [])

    def directory(self, controller: str) -> str | None:
        """Returns the version 1 directory of a controller."""
        for key, path in self.dirs.items():
            if key and controller in key.split(","):
                return path
        return None

    @property
    def unified(self) -> str | None:
        return self.dirs.get(_UNIFIED)

    @property
    def is_v2(self) -> bool:
        return list(self.dirs) == [_UNIFIED]

    def claim(self) -> None:
        """Refuses foreign cgroups, before anything is created or recorded."""
        removal.claim(self)
        self.claimed = True

    def create(self) -> None:
        """Creates the directory in every hierarchy in which `claim` found none."""
        for key, path in list(self.dirs.items()):
            self._make(key, path[: -len(self.path)])
            if path not in self.made and key not in self.foreign:
                del self.dirs[key]
                raise Error(f"cgroup {path} was created by another process just now")
        if self.frozen():
            raise Error(
                f"cgroup {self.path} is frozen, or one above it is", hint="nothing in it would ever start"
            )

    def _make(self, key: str, root: str) -> None:
        """Creates the path in one hierarchy. A parent can vanish: a failed launch removes its own."""
        for attempt in range(_ATTEMPTS):
            try:
                self._make_once(key, root)
                return
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENODEV) or attempt + 1 == _ATTEMPTS:
                    raise Error(f"cannot make the cgroup {error.filename}: {error.strerror}") from None

    def _make_once(self, key: str, root: str) -> None:
        current = root
        cpuset = "cpuset" in key.split(",")
        for part in self.path.strip("/").split("/"):
            if key == _UNIFIED:
                _enable_controllers(current)
            parent, current = current, f"{current}/{part}"
            try:
                os.mkdir(current, 0o755)
                self.made.append(current)
            except FileExistsError:
                pass
            if cpuset:
                _inherit_cpuset(parent, current, made=current in self.made)

    def join(self, pid: int) -> None:
        """Moves `pid` to the cgroup in every hierarchy."""
        for path in self.dirs.values():
            try:
                write(f"{path}/cgroup.procs", str(pid))
            except OSError as error:
                raise Error(f"cannot join the cgroup {path}: {error.strerror}") from None

    def open_tasks(self, sub: str = "") -> list[int]:
        """Opens the version 1 `tasks` files, for `enter`."""
        found: list[int] = []
        for key, path in self.dirs.items():
            if key:
                target = f"{path}/{sub}" if sub and os.path.isdir(f"{path}/{sub}") else path
                found.append(os.open(f"{target}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        return found

    def apply(self, resources: Resources, *, update: bool = False) -> None:
        """Sets every limit; the error for one that cannot be set names its place in the configuration."""
        if resources.kernel_memory is not None:
            # The specification allows a runtime to ignore it: kernels since 5.4 have no such limit.
            log.warn(f"{resources.path}.memory.kernel is left out: kernel memory has no limit of its own")
        if not self.dirs:
            from ringfence_runtime.cgroup.limits_none import apply
        elif self.is_v2:
            from ringfence_runtime.cgroup.limits_v2 import apply
        else:
            from ringfence_runtime.cgroup.limits_v1 import apply
        apply(self, resources, update=update)

    def processes(self) -> list[int]:
        """Returns every process in the cgroup and below it, from one hierarchy."""
        base = self.directory("pids") or self.directory("devices") or self.unified or self._any()
        return sorted(removal.processes([base])) if base else []

    def _any(self) -> str | None:
        return next(iter(self.dirs.values()), None)

    def exists(self) -> bool:
        return any(os.path.isdir(path) for path in self.dirs.values())

    def kill(self) -> None:
        """Kills everything in the cgroup until it is empty (10 s at most)."""
        assert self.claimed
        removal.kill(self)

    def freeze(self, *, frozen: bool) -> None:
        """Freezes or thaws every task of the cgroup, and waits for completion (10 s at most)."""
        freezer = self.directory("freezer")
        files: list[tuple[str, str]] = []
        if freezer is not None:
            files.append((f"{freezer}/freezer.state", "FROZEN" if frozen else "THAWED"))
        if self.unified is not None and (freezer is None or not frozen):
            files.append((f"{self.unified}/cgroup.freeze", str(int(frozen))))
        if not files:
            what = "this host has no freezer" if self.dirs else "the container has no cgroup"
            raise Error(f"it cannot be paused: {what}")
        deadline = time.monotonic() + 10
        while True:
            # Version 1 can stay FREEZING if a task forks meanwhile; writing again completes it (as in runc).
            for file, wanted in files:
                write(file, wanted)
            if self.frozen() == frozen:
                return
            if time.monotonic() > deadline:
                raise Error(f"the cgroup {self.path} did not {'freeze' if frozen else 'thaw'} in 10 s")
            time.sleep(0.001)

    def frozen(self) -> bool:
        """Returns True if its tasks are frozen, by its own freezer or by one above it."""
        freezer = self.directory("freezer")
        try:
            if freezer is not None and read(f"{freezer}/freezer.state") == "FROZEN":
                return True
            return self.unified is not None and "frozen 1" in read(f"{self.unified}/cgroup.events")
        except FileNotFoundError:
            return False

    def open_unified(self) -> int:
        assert self.unified is not None
        return os.open(self.unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def destroy(self) -> None:
        """Removes the directories of `create`, at the end of the container's life."""
        assert self.claimed
        removal.destroy(self)

    def undo(self) -> None:
        """Removes them after a failed launch, with the parents that it created."""
        assert self.claimed
        removal.undo(self)


def enter(tasks: list[int]) -> None:
    """Moves the calling thread, the only one of its process, to the cgroups of `open_tasks`; closes them.

    A thread that moves itself needs no lock over all thread groups; moving another process takes one, with
    an RCU grace period, in each hierarchy: 1 ms each, 7 to 15 ms in all on a version 1 host.
    """
    for fd in tasks:
        os.write(fd, b"0")
        os.close(fd)


def _inherit_cpuset(parent: str, child: str, *, made: bool) -> None:
    """Initializes a version 1 cpuset from its parent: a new one is empty, and accepts no task."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if made or not read(f"{child}/{name}"):
            write(f"{child}/{name}", read(f"{parent}/{name}"))


def _enable_controllers(directory: str) -> None:
    """Enables every controller for the children. A failure shows when its limit is set."""
    available = set(read(f"{directory}/cgroup.controllers").split())
    enabled = set(read(f"{directory}/cgroup.subtree_control").split())
    for controller in sorted(available - enabled):
        try:
            write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        except OSError:
            continue
