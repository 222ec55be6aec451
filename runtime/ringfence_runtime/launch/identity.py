# SPDX-License-Identifier: Apache-2.0
"""Acts of becoming the workload that need more than one call: limits, scheduling, environment, program.

The operations of `operations/identity.py` and `start.py` use them, for a container's init and for `exec`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from _struct import pack

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.paths import NULL, open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ringfence_runtime.spec.process import Process, Rlimit, Scheduler

__all__ = [
    "candidates",
    "change_directory",
    "end_imports",
    "environment",
    "find_executable",
    "free_cpus",
    "latest",
    "own_streams",
    "schedule",
    "set_groups",
    "set_rlimits",
]

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def set_rlimits(pid: int, limits: Sequence[Rlimit]) -> None:
    """Sets limits of `pid` from outside. A limit that cannot be set is an error."""
    if not limits:
        return
    import resource  # a library of its own, which few containers need

    for limit in limits:
        wanted = (_signed(limit.soft), _signed(limit.hard))
        try:
            resource.prlimit(pid, limit.resource, wanted)
        except (PermissionError, ValueError) as error:
            if isinstance(error, ValueError) and "not allowed" not in str(error):
                raise Error(f"config: {limit.path}: {limit.name}: {error}") from None
            if not _as_its_user(pid, limit.resource, wanted):
                has = resource.getrlimit(limit.resource)[1]  # the init has the same limits as the runtime
                raise Error(
                    f"config: {limit.path}: {limit.name} cannot be raised from {has} to {limit.hard}",
                    hint="this host does not allow it to be raised (CAP_SYS_RESOURCE is missing)",
                ) from None


def _as_its_user(pid: int, kind: int, wanted: tuple[int, int]) -> bool:
    """Lowers a limit without CAP_SYS_RESOURCE. Returns True if that worked.

    prlimit(2) then allows it only to a process with the same ids, and the init already has the workload's.
    """
    child, pidfd = syscalls.clone3(0)
    if child == 0:
        try:
            import resource

            with open(f"/proc/{pid}/status") as file:
                ids = {key: value.split() for key, _, value in (line.partition(":") for line in file)}
            gid, uid = int(ids["Gid"][0]), int(ids["Uid"][0])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            resource.prlimit(pid, kind, wanted)
            os._exit(0)
        finally:
            os._exit(1)  # the caller reports the error
    os.close(pidfd)
    return os.waitpid(child, 0)[1] == 0


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def free_cpus(pid: int) -> None:
    """Lets a process run on every CPU that its cgroup allows, whatever the affinity of the runtime is."""
    try:
        count = os.sysconf("SC_NPROCESSORS_CONF")
        if len(os.sched_getaffinity(pid)) < count:
            os.sched_setaffinity(pid, range(count))
    except OSError:
        return  # an outer cpuset decides


def end_imports() -> None:
    """Forbids further imports: they would execute the image's files with the runtime's rights."""
    sys.meta_path.clear()


def schedule(process: Process) -> None:
    """Sets the scheduler and the io priority of this process."""
    if process.scheduler is not None:
        _set_scheduler(process.scheduler)
    if process.io_priority is not None:
        try:
            syscalls.ioprio_set(process.io_priority.klass, process.io_priority.level)
        except OSError as error:
            raise Error(f"config: process.ioPriority: {error.strerror}") from None


def _set_scheduler(scheduler: Scheduler) -> None:
    data = pack(
        "IIQiIQQQ",
        48,
        scheduler.policy,
        scheduler.flags,
        scheduler.nice,
        scheduler.priority,
        scheduler.runtime,
        scheduler.deadline,
        scheduler.period,
    )
    try:
        syscalls.sched_setattr(data)
    except OSError as error:
        raise Error(f"config: process.scheduler: {error.strerror}") from None


def latest(process: Process) -> dict[str, str]:
    """The variables by name. If a name occurs twice, the last one counts."""
    return {item.partition("=")[0]: item for item in process.env}


def environment(process: Process, root: int) -> list[str]:
    """The environment, with HOME from the container's /etc/passwd if it has none, as engines expect."""
    variables = latest(process)
    if not variables.get("HOME", "HOME=").partition("=")[2]:
        variables["HOME"] = f"HOME={_home(root, process.user.uid)}"
    return list(variables.values())


def _home(root: int, uid: int) -> str:
    """The home directory in /etc/passwd. The image controls that file: only a bounded part of a regular file
    is read.
    """
    try:
        fd = open_in_root(root, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return "/"
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return "/"
        text = os.read(fd, 1 << 20).decode(errors="surrogateescape")
    finally:
        os.close(fd)
    for line in text.split("\n"):
        fields = line.split(":")
        if len(fields) >= 7 and fields[2] == str(uid) and fields[5].startswith("/") and "\0" not in fields[5]:
            return fields[5]
    return "/"


def change_directory(path: str) -> None:
    """Enters a directory, which must lie in the root (CVE-2024-21626: one through a leaked descriptor)."""
    try:
        os.chdir(path)
    except OSError as error:
        raise Error(f"config: process.cwd: cannot enter {path}: {error.strerror}") from None
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise Error(f"config: process.cwd: {path} is outside the container's root")


def candidates(name: str, env: Iterable[str]) -> list[str]:
    """The paths that `name` may mean, in order."""
    if "/" in name:
        return [name]
    path = next((item[5:] for item in env if item.startswith("PATH=")), _DEFAULT_PATH)
    return [f"{directory or '.'}/{name}" for directory in path.split(":")]


def find_executable(name: str, env: Sequence[str]) -> str:
    """The path to execute, found as by execvp. The errors have the words of runc, which engines know."""
    if "/" in name:
        return _check_executable(name)
    denied = False
    for path in candidates(name, env):
        try:
            return _check_executable(path)
        except Error as error:
            denied = denied or error.message.endswith(os.strerror(errno.EACCES))
    why = "permission denied" if denied else "executable file not found in $PATH"
    raise Error(f'exec: "{name}": {why}')


def _check_executable(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode) or not os.access(path, os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        kind = {errno.ENOENT: "no such file or directory", errno.EACCES: "permission denied"}
        text = kind.get(error.errno or 0, error.strerror)
        raise Error(f'exec: "{path}": stat {path}: {text}') from None
    return path


def own_streams(uid: int, gid: int) -> None:
    """Lets the workload's user reopen the streams as /dev/stdout. /dev/null keeps its owner: all processes
    share it.
    """
    for fd in range(3):
        try:
            status = os.fstat(fd)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(*NULL):
                continue
            group = -1 if os.isatty(fd) else gid  # a terminal keeps its group, `tty`
            if status.st_uid != uid or group not in (-1, status.st_gid):
                os.fchown(fd, uid, group)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EINVAL, errno.EROFS, errno.EBADF):
                raise


def set_groups(groups: Sequence[int], *, has_userns: bool) -> None:
    """Sets the supplementary groups."""
    try:
        os.setgroups(groups)
    except PermissionError:
        # A user namespace created without privileges must not call setgroups. Without groups that is fine.
        if groups or not has_userns:
            raise Error("config: process.user.additionalGids: setgroups is not permitted here") from None
