# SPDX-License-Identifier: Apache-2.0
"""The cgroup of one container: made, limited, joined, frozen, killed and removed in every hierarchy at
once.
"""

from __future__ import annotations

import errno
import os
import time

from ringfence_runtime.cgroup.hierarchy import Hierarchies, detect, read, write
from ringfence_runtime.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.spec.resources import Resources

__all__ = ["Cgroup"]

_UNIFIED = ""


class Cgroup:
    """Directories by hierarchy: the key is the version 1 controller list, or `` for version 2."""

    __slots__ = ("dirs", "made", "path")

    def __init__(self, path: str, dirs: dict[str, str]) -> None:
        self.path = path
        self.dirs = dirs
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

    def create(self) -> None:
        """Make the directory in every hierarchy. One that exists already must be empty: it may be
        another's.
        """
        for key, path in self.dirs.items():
            root = path[: -len(self.path)]
            self._make(key, root, self.path)
            if path not in self.made and key != _UNIFIED and read(f"{path}/cgroup.procs"):
                raise Error(f"cgroup {path} is in use by other processes")

    def _make(self, key: str, root: str, relative: str) -> None:
        current = root
        controllers = "cpuset" in key.split(",")
        for part in relative.strip("/").split("/"):
            if key == _UNIFIED:
                _enable_controllers(current)
            parent, current = current, f"{current}/{part}"
            try:
                os.mkdir(current, 0o755)
                self.made.append(current)
            except FileExistsError:
                pass
            except OSError as error:
                raise Error(f"cannot make the cgroup {current}: {error.strerror}") from None
            if controllers:
                _inherit_cpuset(parent, current)

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
        if self.is_v2:
            from ringfence_runtime.cgroup.limits_v2 import apply
        else:
            from ringfence_runtime.cgroup.limits_v1 import apply
        apply(self, resources, update=update)

    def processes(self) -> list[int]:
        """Every process in the cgroup and below it."""
        base = (
            self.directory("pids")
            or self.directory("devices")
            or self.unified
            or next(iter(self.dirs.values()))
        )
        found: list[int] = []
        for directory in reversed(tree(base)):
            try:
                found.extend(int(pid) for pid in read(f"{directory}/cgroup.procs").split())
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENODEV):
                    raise
                found.extend({int(pid) for pid in read(f"{directory}/cgroup.threads").split()})
        return found

    def exists(self) -> bool:
        return any(os.path.isdir(path) for path in self.dirs.values())

    def kill(self) -> None:
        """SIGKILL to everything in the cgroup; `cgroup.kill` (5.14) also catches what forks meanwhile."""
        if self.unified is not None:
            try:
                write(f"{self.unified}/cgroup.kill", "1")
            except OSError:
                pass
        for _ in range(50):
            pids = self.processes() if self.exists() else []
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            time.sleep(0.001)

    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue every task of the cgroup, and wait until that is so (10 s at most)."""
        freezer = self.directory("freezer")
        if freezer is not None:
            wanted = "FROZEN" if frozen else "THAWED"
            file = f"{freezer}/freezer.state"
        elif self.unified is not None:
            wanted, file = ("1" if frozen else "0"), f"{self.unified}/cgroup.freeze"
        else:
            raise Error("this host has no freezer")
        deadline = time.monotonic() + 10
        while True:
            # Version 1 may stay FREEZING when a task forks meanwhile; writing again finishes it (runc does
            # so, too).
            write(file, wanted)
            if self.frozen() == frozen:
                return
            if time.monotonic() > deadline:
                raise Error(f"the cgroup {self.path} did not {'freeze' if frozen else 'thaw'} in 10 s")
            time.sleep(0.001)

    def frozen(self) -> bool:
        freezer = self.directory("freezer")
        try:
            if freezer is not None:
                return read(f"{freezer}/freezer.state") == "FROZEN"
            if self.unified is not None:
                return "frozen 1" in read(f"{self.unified}/cgroup.events")
        except FileNotFoundError:
            pass
        return False

    def open_unified(self) -> int:
        assert self.unified is not None
        return os.open(self.unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def remove(self) -> None:
        """Remove the cgroup and what is below it; waits up to 10 s for its last task to be gone."""
        deadline = time.monotonic() + 10
        for path in self.dirs.values():
            for directory in tree(path):
                _remove(directory, deadline)

    def undo(self) -> None:
        """Remove only what `create` made, the parents too, after a launch that failed."""
        deadline = time.monotonic() + 10
        for path in self.dirs.values():
            if path in self.made:
                for directory in tree(path):
                    _remove(directory, deadline)
        for path in reversed(self.made):
            try:
                os.rmdir(path)
            except OSError:
                continue


def enter(tasks: list[int]) -> None:
    """Put the calling thread, which must be alone in its process, in the cgroups of `open_tasks`, and close
    them.

    A thread that moves itself needs no lock over all thread groups; moving another process takes one, with
    an RCU grace period, in each hierarchy: 1 ms each, 7 to 15 ms in all on a version 1 host.
    """
    for fd in tasks:
        os.write(fd, b"0")
        os.close(fd)


def tree(base: str) -> list[str]:
    """`base` and every directory below it, deepest first; empty where it does not exist."""
    result: list[str] = []
    pending = [base]
    while pending:
        current = pending.pop()
        try:
            entries = list(os.scandir(current))
        except (FileNotFoundError, OSError):
            continue
        result.append(current)
        pending.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    return result[::-1]


def _remove(directory: str, deadline: float) -> None:
    pause = 0.0005
    while True:
        try:
            os.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                raise Error(f"the cgroup {directory} still holds processes") from None
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _inherit_cpuset(parent: str, child: str) -> None:
    """A new version 1 cpuset is empty, and an empty one takes no task: begin with what the parent has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read(f"{child}/{name}"):
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
