# SPDX-License-Identifier: Apache-2.0
"""The end of sandboxes: stop, remove, and a sweep of killed and unattended ones."""

from __future__ import annotations

import os
import select

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.place import Place, places
from ringfence.sandbox.request import Roots

__all__ = ["dispose", "init_of", "open_of_init", "remove", "retire", "stop", "sweep"]


def init_of(place: Place) -> int:
    """Returns the process id of a running sandbox's first process."""
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
    """Opens a file below /proc/PID of a running sandbox's first process, and verifies the process."""
    from ringfence_runtime.errors import Error
    from ringfence_runtime.state import Store

    try:
        container = Store(place.roots.runtime).load(place.name)
        os.close(container.open_init())
        fd = os.open(f"/proc/{container.pid}/{name}", flags | os.O_CLOEXEC)
        if container.alive():  # so its pid was not reused meanwhile
            return fd
        os.close(fd)
    except (Error, FileNotFoundError, ProcessLookupError):
        pass
    raise SandboxError(f"sandbox {place.name} is not running")


def stop(place: Place, *, signal: str = "", seconds: float | None = None) -> bool:
    """Asks the workload to end, and kills it after a time-out. Returns False if it had already ended."""
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
                raise SandboxError(f"sandbox {place.name} cannot be killed")
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    return True


def retire(place: Place) -> None:
    """Frees everything of a stopped sandbox except its record, its output and its layer."""
    _delete(place)
    place.release()


def dispose(place: Place) -> None:
    """Kills its processes and removes everything, including leftovers of a crash."""
    from ringfence_runtime.images import ImageStore, release_rootfs

    _delete(place)
    release_rootfs(ImageStore(place.roots.images), place.name)
    place.remove()


def remove(place: Place, *, force: bool) -> None:
    """`ringfence rm`. Force removes any sandbox except one that is being started by a running process."""
    status = place.status()
    if status != "stopped" and not force:
        raise SandboxError(f"sandbox {place.name} is {status}", hint="stop it first, or use --force")
    if not place.hold():
        if not os.path.isdir(place.directory):
            return  # another `rm` was quicker
        # In the foreground the starter holds the lock, and removes the sandbox after its workload has ended.
        _delete(place)
        if not place.hold(wait=True):
            return
    dispose(place)


def _delete(place: Place) -> None:
    """Removes its processes, its cgroup and its network."""
    from ringfence_runtime.cli.control import delete
    from ringfence_runtime.cli.options import parse_globals

    settings, _ = parse_globals(["--root", place.roots.runtime])
    delete(settings, ["--force", place.name])
    if place.record.get("leased", True) and os.path.isdir(f"{place.roots.state}/networks"):
        from ringfence.sandbox.network.attach import release

        release(place.roots.state, place.name)


def sweep(roots: Roots) -> list[str]:
    """Removes sandboxes that were killed during their start, or have ended without --keep; returns names.

    A failure affects neither the others nor the sweeping command: `ringfence rm` shows its reason.
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
            place.release()
    return gone


def _finished(place: Place) -> bool:
    """Returns True if it has ended and is not kept."""
    return not place.record.get("keep") or not os.path.exists(f"{place.directory}/config.json")
