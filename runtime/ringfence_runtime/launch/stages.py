# SPDX-License-Identifier: Apache-2.0
"""Creation of the container's init: directly by the parent, or through a process that joins namespaces
first.

A pid or time namespace holds only children, and a joined user namespace changes what may be joined
after it. For such joins a short-lived stage process enters them and clones the init as its sibling
(CLONE_PARENT). Otherwise one clone3 does everything, into the cgroup if possible.
"""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.channel import Channel, pair
from ringfence_runtime.launch.idmap import write_maps
from ringfence_runtime.launch.plan import Plan
from ringfence_runtime.spec.linux import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["spawn"]


def join(namespaces: dict[str, int]) -> None:
    """Joins all namespaces. A join that needs the rights of the joined user namespace is tried again
    after it.
    """
    later: dict[str, int] = {}
    for name, fd in namespaces.items():
        if name == "user":
            continue
        try:
            syscalls.setns(fd, NAMESPACES[name])
        except PermissionError:
            later[name] = fd
        except OSError as error:
            raise Error(f"cannot join the {name} namespace: {error.strerror}") from None
    if "user" in namespaces:
        syscalls.setns(namespaces["user"], syscalls.CLONE_NEWUSER)
    for name, fd in later.items():
        try:
            syscalls.setns(fd, NAMESPACES[name])
        except OSError as error:
            raise Error(f"cannot join the {name} namespace: {error.strerror}") from None


def spawn(plan: Plan, cgroup_fd: int, child: Callable[[], None]) -> tuple[int, int]:
    """Starts `child` in its namespaces and returns (pid, pidfd) to the parent. `child` never returns."""
    if not plan.staged:
        pid, pidfd = syscalls.clone3(plan.clone_flags, cgroup_fd=cgroup_fd)
        if pid == 0:
            child()
            os._exit(255)
        if plan.clone_flags & syscalls.CLONE_NEWUSER:
            write_maps(pid, plan.config.linux.uid_map, plan.config.linux.gid_map)
        return pid, pidfd
    return _spawn_staged(plan, cgroup_fd, child)


def _spawn_staged(plan: Plan, cgroup_fd: int, child: Callable[[], None]) -> tuple[int, int]:
    ours, theirs = pair()
    stage, stage_fd = syscalls.clone3(0)
    if stage == 0:
        ours.close()
        _stage(plan, cgroup_fd, theirs, child)
    theirs.close()
    try:
        while True:
            kind, text = ours.receive()
            if kind == say.MAP_IDS:
                write_maps(stage, plan.config.linux.uid_map, plan.config.linux.gid_map)
                ours.send(say.DONE)
            elif kind == say.SET_CLOCKS:
                _write_offsets(stage, plan)
                ours.send(say.DONE)
            elif kind == say.PID:
                # The init is a child of this process, and no other can reap it, so its id is valid.
                return int(text), syscalls.pidfd_open(int(text))
            else:
                raise Error(text or "the stage process died while it joined the namespaces")
    finally:
        ours.close()
        os.close(stage_fd)
        os.waitpid(stage, 0)


def _write_offsets(pid: int, plan: Plan) -> None:
    lines = "".join(
        f"{clock} {secs} {nanoseconds}\n" for clock, secs, nanoseconds in plan.config.linux.time_offsets
    )
    if not lines:
        return
    fd = os.open(f"/proc/{pid}/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, lines.encode())
    except OSError as error:
        raise Error(f"config: linux.timeOffsets: {error.strerror}") from None
    finally:
        os.close(fd)


def _stage(plan: Plan, cgroup_fd: int, channel: Channel, child: Callable[[], None]) -> None:
    try:
        if not plan.rootless:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        join(plan.namespaces)
        if plan.unshare_user:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            channel.send(say.MAP_IDS)
            channel.receive()
        # Without root, only the ids of a dumpable process can be mapped (ptrace(2)).
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
        if "user" in plan.config.linux.namespaces:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if plan.config.linux.namespaces.get("time") == "":
            syscalls.unshare(syscalls.CLONE_NEWTIME)
            channel.send(say.SET_CLOCKS)
            channel.receive()
        pid, _ = syscalls.clone3(plan.clone_flags | syscalls.CLONE_PARENT, cgroup_fd=cgroup_fd)
        if pid:
            channel.send(say.PID, str(pid))
            os._exit(0)
        channel.close()
        child()
    except (Error, OSError) as error:
        channel.send(say.ERROR, str(error))
    finally:
        os._exit(1)
