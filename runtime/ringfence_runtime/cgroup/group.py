# SPDX-License-Identifier: Apache-2.0
"""The cgroup of one container: made, limited, joined, frozen, killed and removed in every hierarchy at
once.
"""

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
        self.foreign = foreign or []  # keys of `dirs` that were there before us
        self.claimed = foreign is not None  # whether what is in it is ours
        self.made: list[str] = []

    @classmethod
    def at(cls, path: str, hierarchies: Hierarchies | None = None) -> Cgroup:
        """The cgroup `path` (from the root of every hierarchy); nothing is made yet."""
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
        """No cgroup at all: the container stays in that of whoever starts it."""
        return cls("", {}, [])

    def directory(self, controller: str) -> str | None:
        """The version 1 directory of a controller."""
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
        """Refuse what is somebody else's, before anything is made or written down."""
        removal.claim(self)
        self.claimed = True

    def create(self) -> None:
        """Make the directory in every hierarchy, where `claim` found none."""
        for key, path in list(self.dirs.items()):
            self._make(key, path[: -len(self.path)])
            if path not in self.made and key not in self.foreign:
                del self.dirs[key]
                raise Error(f"cgroup {path} was made by somebody else just now")
        if self.frozen():
            raise Error(
                f"cgroup {self.path} is frozen, or one above it is", hint="nothing in it would ever start"
            )

    def _make(self, key: str, root: str) -> None:
        """Make the path in one hierarchy. A parent may vanish meanwhile: another launch that failed removes
        its own.
        """
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
        """Move `pid` into every hierarchy."""
        for path in self.dirs.values():
            try:
                write(f"{path}/cgroup.procs", str(pid))
            except OSError as error:
                raise Error(f"cannot join the cgroup {path}: {error.strerror}") from None

    def open_tasks(self, sub: str = "") -> list[int]:
        """Descriptors of the version 1 `tasks` files, for `enter`."""
        found: list[int] = []
        for key, path in self.dirs.items():
            if key:
                target = f"{path}/{sub}" if sub and os.path.isdir(f"{path}/{sub}") else path
                found.append(os.open(f"{target}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        return found

    def apply(self, resources: Resources, *, update: bool = False) -> None:
        """Set every limit; one that cannot be set is an error that names its place in the configuration."""
        if resources.kernel_memory is not None:
            # The specification lets a runtime leave it out: kernels from 5.4 on have no such limit.
            log.warn(f"{resources.path}.memory.kernel is left out: kernel memory has no limit of its own")
        if not self.dirs:
            from ringfence_runtime.cgroup.limits_none import apply
        elif self.is_v2:
            from ringfence_runtime.cgroup.limits_v2 import apply
        else:
            from ringfence_runtime.cgroup.limits_v1 import apply
        apply(self, resources, update=update)

    def processes(self) -> list[int]:
        """Every process in the cgroup and below it, as one hierarchy lists them."""
        base = self.directory("pids") or self.directory("devices") or self.unified or self._any()
        return sorted(removal.processes([base])) if base else []

    def _any(self) -> str | None:
        return next(iter(self.dirs.values()), None)

    def exists(self) -> bool:
        return any(os.path.isdir(path) for path in self.dirs.values())

    def kill(self) -> None:
        """SIGKILL to everything in the cgroup, until it is empty (10 s at most)."""
        assert self.claimed
        removal.kill(self)

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue every task of the cgroup, and wait until that is so (10 s at most)."""
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
            # Version 1 may stay FREEZING when a task forks meanwhile; writing again finishes it (runc does
            # so, too).
            for file, wanted in files:
                write(file, wanted)
            if self.frozen() == frozen:
                return
            if time.monotonic() > deadline:
                raise Error(f"the cgroup {self.path} did not {'freeze' if frozen else 'thaw'} in 10 s")
            time.sleep(0.001)

    def frozen(self) -> bool:
        """Whether its tasks are held, by its own freezer or by one above it."""
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
        """Remove what `create` made, at the end of the container's life."""
        assert self.claimed
        removal.destroy(self)

    def undo(self) -> None:
        """The same after a launch that failed, with the parents that it made."""
        assert self.claimed
        removal.undo(self)


def enter(tasks: list[int]) -> None:
    """Put the calling thread, which must be alone in its process, in the cgroups of `open_tasks`, and close
    them.

    A thread that moves itself needs no lock over all thread groups; moving another process takes one, with
    an RCU grace period, in each hierarchy: 1 ms each, 7 to 15 ms in all on a version 1 host.
    """
    for fd in tasks:
        os.write(fd, b"0")
        os.close(fd)


def _inherit_cpuset(parent: str, child: str, *, made: bool) -> None:
    """A new version 1 cpuset is empty, and an empty one takes no task: begin with what the parent has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if made or not read(f"{child}/{name}"):
            write(f"{child}/{name}", read(f"{parent}/{name}"))


def _enable_controllers(directory: str) -> None:
    """Hand every controller on to the children. One that refuses is found out when its limit is set."""
    available = set(read(f"{directory}/cgroup.controllers").split())
    enabled = set(read(f"{directory}/cgroup.subtree_control").split())
    for controller in sorted(available - enabled):
        try:
            write(f"{directory}/cgroup.subtree_control", f"+{controller}")
        except OSError:
            continue
