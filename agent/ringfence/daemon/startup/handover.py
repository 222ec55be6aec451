# SPDX-License-Identifier: Apache-2.0
"""The handover from one agent's pod to the next: the pins of the first must neither stop the
second nor go away.

In a pod, the agent is a container like others. A running agent is exempt from its own programs,
but its successor is subject to the pinned ones: its first bpf(2) would be its last call. So every
agent leaves tickets, in the kernel and, readable by root only, in its state directory; no
container can read them while their agent runs. The successor begins by making a cgroup with the
name of a ticket inside its own, and is exempted (container.bpf.c). A ticket is valid for
one task, once. There are several, and new ones are issued as soon as one is used, so an agent that
ends before it is ready leaves some to the next. Without any ticket, the pins are removed first: a
gap as long as a start, which is reported. Where the earlier agent defends its pins, the start fails
with an error.

Everything that can be checked without the kernel is checked before: an agent with broken policies
must not use up tickets, let alone remove pins. On a host the agent is not armed, and no ticket is
needed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ringfence.bpf.maps import Map, MapType, create_map
from ringfence.bpf.pins import PinDirectory, candidates, find_base
from ringfence.config import Config
from ringfence.containers.hierarchy import detect, host_namespaces, own_cgroup
from ringfence.errors import KernelError
from ringfence_linux.atomicfile import replace_file

__all__ = ["ADMITTED", "FILE", "GAP", "NOTHING", "admit", "earlier_pins", "issue"]

NOTHING, ADMITTED, GAP = "nothing", "admitted", "gap"
FILE = "ticket"
_PATIENCE = 5.0  # seconds
_TICKETS = 3  # at most the entries of the kernel's table
_PREFIX = "ringfence-admit-"


def earlier_pins(config: Config) -> list[PinDirectory]:
    """Pins of earlier agents, if they would kill this process; empty: it is not subject to any."""
    base = find_base(candidates(config.pins), create=False) if config.pins != "off" else None
    if base is None or _on_the_host():
        return []
    return PinDirectory.all(base)


def admit(earlier: Sequence[PinDirectory], state_dir: Path) -> str:
    """Get past the pins of earlier agents, before the first bpf(2). Returns NOTHING, ADMITTED or
    GAP.
    """
    if not earlier:
        return NOTHING
    for name in _tickets(state_dir):
        if _use_ticket(name) and _survives(_use_bpf):
            with contextlib.suppress(OSError):
                issue(earlier, state_dir)
            return ADMITTED
    if not any(directory.defended for directory in earlier):  # an attempt would end this container
        _survives(lambda: _remove(earlier))
    if any(directory.path.exists() for directory in earlier):
        base = earlier[0].path.parent
        raise KernelError(
            f"an earlier agent's programs guard {base}, and there is no ticket for this one",
            hint=f"remove them on the host, not from a container: rm -r {base}",
        )
    # Programs that lost their last pin end some RCU grace periods later.
    end = time.monotonic() + _PATIENCE
    while not _survives(_use_bpf) and time.monotonic() < end:
        time.sleep(0.02)
    return GAP


def issue(pinned: Sequence[PinDirectory], state_dir: Path, own: Map | None = None) -> None:
    """Issue new tickets, for the agents after this one. Raises OSError.

    They are valid with every agent whose pins are still there, and with `own`: this agent may end
    before it has removed the others. The tickets of an agent of another ABI stay as they are.
    """
    names = [_PREFIX + secrets.token_hex(16) for _ in range(_TICKETS)]
    for earlier in pinned:
        with contextlib.suppress(OSError):
            with earlier.open_to_write("tickets") as found:
                if found is not None:
                    _fill(found, names)
    if own is not None:
        _fill(own, names)
    replace_file(state_dir / FILE, "".join(f"{name}\n" for name in names).encode())


def _fill(tickets: Map, names: Sequence[str]) -> None:
    tickets.delete_all()  # no file has the names of earlier tickets any more
    for name in names[: tickets.max_entries]:
        tickets.set(name.encode().ljust(tickets.key_size, b"\0"), 1)


def _on_the_host() -> bool:
    """Returns True if this process is in the host's mount namespace: then it is not armed."""
    host = host_namespaces()
    return os.readlink("/proc/self/ns/mnt") == f"mnt:[{host.mnt}]" and not host.notes


def _survives(act: Callable[[], object]) -> bool:
    """Returns True if `act` succeeds. It is tried in a child: pinned programs may answer with
    SIGKILL.
    """
    child = os.fork()  # no thread was started yet
    if not child:
        failed = 1
        try:
            act()
            failed = 0
        finally:
            os._exit(failed)
    return os.waitpid(child, 0)[1] == 0


def _use_bpf() -> None:
    create_map(MapType.ARRAY, "rf_handover", 4, 4, 1).close()


def _remove(directories: Iterable[PinDirectory]) -> None:
    for directory in directories:
        directory.remove()


def _tickets(state_dir: Path) -> list[str]:
    """Tickets that may be valid. The file is only read: before admission its writer is not
    trusted.
    """
    try:
        return (state_dir / FILE).read_text().split()
    except (OSError, ValueError):
        return []


def _use_ticket(name: str) -> bool:
    try:
        own = own_cgroup(detect())
        if own is None or not name.startswith(_PREFIX) or "/" in name:
            return False
        (own / name).mkdir()
        with contextlib.suppress(OSError):
            (own / name).rmdir()
    except (OSError, KernelError):
        return False
    return True
