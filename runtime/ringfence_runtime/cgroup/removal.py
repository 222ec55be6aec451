# SPDX-License-Identifier: Apache-2.0
"""The end of a cgroup: its processes are killed, and only directories that the launch created are removed.

A directory that existed before belongs to its creator. It is used only if it is empty (`claim`), so
everything found in it afterwards is the container's.
"""

from __future__ import annotations

import errno
import os
import time

from ringfence_linux.cgroups import paths_of
from ringfence_runtime.cgroup.hierarchy import read, write
from ringfence_runtime.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup

__all__ = ["claim", "destroy", "kill", "processes", "tree", "undo"]

_PATIENCE = 10.0  # seconds until a cgroup must be empty
_NOT_SEEN = 0  # pid of processes in a parent pid namespace; to kill(2) it means the own process group
_FIRST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.05


def claim(group: Cgroup) -> None:
    """Refuses directories in use by others; records in `foreign` existing ones that can be used."""
    for key, path in group.dirs.items():
        below = tree(path)
        if not below:
            continue
        group.foreign.append(key)
        if len(below) > 1:
            raise Error(
                f"cgroup {path} holds other cgroups, such as {below[0]}",
                hint="it belongs to another program: choose another linux.cgroupsPath or ID",
            )
        if _listed(path):
            raise Error(f"cgroup {path} is in use by other processes")


def tree(base: str) -> list[str]:
    """Returns `base` and every directory below it, the deepest first; empty if it does not exist."""
    result: list[str] = []
    pending = [base]
    while pending:
        current = pending.pop()
        try:
            entries = list(os.scandir(current))
        except OSError:
            continue
        result.append(current)
        pending.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    return result[::-1]


def _listed(directory: str) -> set[int]:
    """Returns the processes of one directory; a threaded one of version 2 lists threads only."""
    try:
        return {int(pid) for pid in read(f"{directory}/cgroup.procs").split()} - {_NOT_SEEN}
    except FileNotFoundError:
        return set()
    except OSError as error:
        if error.errno == errno.ENODEV:  # removed while it was read
            return set()
        if error.errno != errno.EOPNOTSUPP:
            raise
        return {int(pid) for pid in read(f"{directory}/cgroup.threads").split()} - {_NOT_SEEN}


def processes(paths: list[str]) -> set[int]:
    """Returns every process in these directories and below them."""
    return {pid for path in paths for directory in tree(path) for pid in _listed(directory)}


def kill(group: Cgroup) -> None:
    """Kills everything in the cgroup, in all hierarchies, until it is empty (10 s at most).

    `cgroup.kill` (Linux 5.14) also kills tasks that fork meanwhile. Without it, the cgroup is frozen while
    it is read and signalled, so that a fork bomb cannot outrun it.
    """
    at_once = _kill_at_once(group)
    deadline = time.monotonic() + _PATIENCE
    pause, again = _FIRST_PAUSE, False
    while pids := processes(list(group.dirs.values())):
        if not at_once:
            _freeze_tree(group, "FROZEN")
            pids |= processes(list(group.dirs.values()))
        for pid in pids:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
            if again:
                thaw_elsewhere(group, pid)
        _freeze_tree(group, "THAWED")  # a task frozen by a version 1 freezer dies only after it is thawed
        if time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause, again = min(pause * 2, _LONGEST_PAUSE), True


def _kill_at_once(group: Cgroup) -> bool:
    if group.unified is None:
        return False
    try:
        write(f"{group.unified}/cgroup.kill", "1")
    except OSError:
        return False
    return True


def _freeze_tree(group: Cgroup, state: str) -> None:
    """Writes the state to every version 1 freezer of the cgroup: a workload can create some below its own."""
    freezer = group.directory("freezer")
    for directory in tree(freezer) if freezer is not None else ():
        try:
            if read(f"{directory}/freezer.state") != state:
                write(f"{directory}/freezer.state", state)
        except OSError:
            continue


def thaw_elsewhere(group: Cgroup, pid: int) -> None:
    """Moves a process back from a foreign frozen version 1 cgroup, which thaws it."""
    freezer = group.directory("freezer")
    if freezer is None:
        return
    try:
        path = next(path for key, path in paths_of(pid).items() if "freezer" in key.split(","))
        if path != group.path and not path.startswith(f"{group.path}/"):
            write(f"{freezer}/cgroup.procs", str(pid))
    except (OSError, StopIteration):
        return


def destroy(group: Cgroup) -> None:
    """Kills remaining processes and removes the cgroup and its descendants, except foreign directories."""
    left = [key for key, path in group.dirs.items() if not _gone_at_once(group, key, path)]
    if not left:
        return
    kill(group)
    deadline = time.monotonic() + _PATIENCE
    for key in left:
        below = tree(group.dirs[key])
        for directory in below[:-1] if key in group.foreign else below:
            _remove(directory, deadline)


def _gone_at_once(group: Cgroup, key: str, path: str) -> bool:
    """Returns True in the usual case: the workload has ended, and created no cgroup of its own."""
    if key in group.foreign:
        return len(tree(path)) < 2 and not _listed(path)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def undo(group: Cgroup) -> None:
    """Removes the directories of `create`, including parents, after a failed launch."""
    destroy(group)
    for path in reversed(group.made):
        try:
            os.rmdir(path)
        except OSError:
            continue


def _remove(directory: str, deadline: float) -> None:
    pause = _FIRST_PAUSE
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
        pause = min(pause * 2, _LONGEST_PAUSE)
