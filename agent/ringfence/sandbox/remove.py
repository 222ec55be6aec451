# SPDX-License-Identifier: Apache-2.0
"""The end of sandboxes: stop, remove, and a sweep of what was killed or ended while nobody watched."""

from __future__ import annotations

import os
import select

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.place import Place, places
from ringfence.sandbox.request import Roots

__all__ = ["dispose", "init_of", "open_of_init", "remove", "retire", "stop", "sweep"]


def init_of(place: Place) -> int:
    """The process id of a running sandbox's first process."""
    from ringfence_runtime.errors import Error
    from ringfence_runtime.state import Store

    try:
        container = Store(place.roots.runtime).load(place.name)
        if container.status() in ("running", "paused"):
            return container.pid
    except Error:
        pass
    raise SandboxError(f"sandbox {place.name} is not running")


def open_of_init(place: Place, name: str, flags: int) -> int:
    """A file below /proc/PID of a running sandbox's first process, opened while that is surely who it is."""
    from ringfence_runtime.errors import Error
    from ringfence_runtime.state import Store

    try:
        container = Store(place.roots.runtime).load(place.name)
        os.close(container.open_init())
        fd = os.open(f"/proc/{container.pid}/{name}", flags | os.O_CLOEXEC)
        if container.alive():  # so its number was not another's meanwhile
            return fd
        os.close(fd)
    except (Error, FileNotFoundError, ProcessLookupError):
        pass
    raise SandboxError(f"sandbox {place.name} is not running")


def stop(place: Place, *, signal: str = "", seconds: float | None = None) -> bool:
    """Ask the workload to end, and kill it when its time is over; False where it had ended already."""
    from ringfence_linux import syscalls
    from ringfence_runtime.cli.control import signal_number
    from ringfence_runtime.errors import NotFoundError, StateError
    from ringfence_runtime.state import Store

    number = signal_number(signal or place.record.get("stop_signal") or "SIGTERM")
    patience = place.record.get("stop_timeout", 10) if seconds is None else seconds
    try:
        container = Store(place.roots.runtime).load(place.name)
        if container.cgroup.frozen():
            container.cgroup.freeze(frozen=False)
        pidfd = container.open_init()
    except (StateError, NotFoundError):
        return False
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        syscalls.pidfd_send_signal(pidfd, number)
        if not poll.poll(max(0, patience) * 1000):
            container.cgroup.kill()
            syscalls.pidfd_send_signal(pidfd, 9)
            if not poll.poll(10_000):
                raise SandboxError(f"sandbox {place.name} does not die")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    return True


def retire(place: Place) -> None:
    """A stopped sandbox gives back all but its record, its output and its layer."""
    _delete(place)
    place.let_go()


def dispose(place: Place) -> None:
    """Kill what still runs in it and remove everything. Nothing is missed that a crash left half made."""
    from ringfence_runtime.images import ImageStore, release_rootfs

    _delete(place)
    release_rootfs(ImageStore(place.roots.images), place.name)
    place.remove()


def remove(place: Place, *, force: bool) -> None:
    """`ringfence rm`. Only one that is being started by somebody who lives is not removed by force."""
    status = place.status()
    if status != "stopped" and not force:
        raise SandboxError(f"sandbox {place.name} is {status}", hint="stop it first, or use --force")
    if not place.hold():
        if not os.path.isdir(place.directory):
            return  # another `rm` was quicker
        # In the foreground its starter holds the lock, and removes it when we have ended its workload.
        _delete(place)
        if not place.hold(wait=True):
            return
    dispose(place)


def _delete(place: Place) -> None:
    """Its processes, its cgroup and its network."""
    from ringfence_runtime.cli.control import delete
    from ringfence_runtime.cli.options import parse_globals

    settings, _ = parse_globals(["--root", place.roots.runtime])
    delete(settings, ["--force", place.name])
    if place.record.get("leased", True) and os.path.isdir(f"{place.roots.state}/networks"):
        from ringfence.sandbox.network.attach import release

        release(place.roots.state, place.name)


def sweep(roots: Roots) -> list[str]:
    """Remove what was killed while it was started, and what ended and was not to be kept; gives the names.

    One that cannot be removed does not stop the others, nor the command that swept: `ringfence rm` says why.
    """
    from ringfence_runtime.errors import Error as RuntimeProblem

    gone = []
    for place in places(roots):
        try:
            if place.status() == "stopped" and place.hold() and _finished(place):
                dispose(place)
                gone.append(place.name)
            elif place.lock >= 0:
                retire(place)
        except (SandboxError, RuntimeProblem, OSError):
            place.let_go()
    return gone


def _finished(place: Place) -> bool:
    """Whether nobody wants to see it any more."""
    return not place.record.get("keep") or not os.path.exists(f"{place.directory}/config.json")
