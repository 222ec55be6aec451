# SPDX-License-Identifier: Apache-2.0
"""From one agent's pod to the next: what the first pinned must not stop the second, and must not go away.

In a pod the agent is a container like others. The running agent is no subject of its own programs, but its
successor is one of what it pinned: its first bpf(2) would be its last call. So every agent leaves a ticket in
the kernel and, for root alone, in its state directory. The next one begins by making a cgroup of that name
inside its own, and is let go (container.bpf.c, rf_admit). A ticket is good for one task, once. Without one,
the pins are removed first: a gap as long as a start, which is told. On a host nobody is armed, and nothing is
needed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path

from ringfence.abi import MAPS
from ringfence.bpf import _libbpf
from ringfence.bpf.maps import Map, MapType
from ringfence.bpf.pins import PinDirectory, candidates, find_base
from ringfence.config import Config
from ringfence.containers.hierarchy import detect, host_namespaces, own_cgroup
from ringfence.errors import KernelError

__all__ = ["ADMITTED", "FILE", "GAP", "NOTHING", "admit", "issue"]

NOTHING, ADMITTED, GAP = "nothing", "admitted", "gap"
FILE = "ticket"
_PATIENCE = 5.0  # seconds
_PREFIX = "ringfence-admit-"


def admit(config: Config) -> str:
    """Get past what an earlier agent pinned; before the first bpf(2). Says how."""
    base = find_base(candidates(config.pins), create=False) if config.pins != "off" else None
    earlier = PinDirectory.all(base) if base is not None else []
    if not earlier or _on_the_host():
        return NOTHING
    if _use_ticket(config.state_dir / FILE) and _may_use_bpf():
        return ADMITTED
    for directory in earlier:
        directory.remove()
    # Programs that lost their last pin end some RCU grace periods later.
    end = time.monotonic() + _PATIENCE
    while not _may_use_bpf() and time.monotonic() < end:
        time.sleep(0.02)
    return GAP


def issue(tickets: Map, base: Path, state_dir: Path) -> None:
    """A new ticket, for the agent after this one. Raises OSError.

    Good with every agent whose pins are still there: this one may end before it has removed them.
    """
    name = _PREFIX + secrets.token_hex(16)
    key = name.encode().ljust(MAPS["tickets"].key, b"\0")
    tickets.set(key, 1)
    for earlier in PinDirectory.all(base):
        found = earlier.open_map("tickets")
        if found is not None:
            with contextlib.closing(found), contextlib.suppress(OSError):
                found.set(key, 1)
    fresh = state_dir / f"{FILE}.{os.getpid()}"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(name)
    fresh.rename(state_dir / FILE)


def _on_the_host() -> bool:
    """Whether this process is in the host's mount namespace: then nothing is armed."""
    host = host_namespaces()
    return os.readlink("/proc/self/ns/mnt") == f"mnt:[{host.mnt}]" and not host.notes


def _may_use_bpf() -> bool:
    """Whether bpf(2) is survived. A child tries it: what is pinned may answer by SIGKILL."""
    child = os.fork()  # no thread was started yet
    if not child:
        failed = 1
        try:
            os.close(_libbpf.map_create(MapType.ARRAY, "rf_handover", 4, 4, 1))
            failed = 0
        finally:
            os._exit(failed)
    return os.waitpid(child, 0)[1] == 0


def _use_ticket(file: Path) -> bool:
    try:
        name = file.read_text()
        file.unlink()
        own = own_cgroup(detect())
        if own is None or not name.startswith(_PREFIX) or "/" in name:
            return False
        (own / name).mkdir()
        with contextlib.suppress(OSError):
            (own / name).rmdir()
    except (OSError, ValueError, KernelError):
        return False
    return True
