# SPDX-License-Identifier: Apache-2.0
"""The observed behaviour of a run, summarised for fences: calls, capabilities, files, programs, addresses.

Counts are by program: the name of the task when it made the call. Names come from the workload, so they are
escaped before they are written anywhere.
"""

from __future__ import annotations

import socket
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ringfence_linux.mountinfo import MountLine

__all__ = ["Observed", "Peer", "observe"]

Counts = dict[Any, Counter[str]]
_CALL, _CALL_REFUSED, _CAPABILITY, _CAPABILITY_REFUSED = 1, 2, 3, 4  # RF_LEARNED_* of learn.h
_COMPAT = "x86"


class Peer(NamedTuple):
    """The remote address of a connection, or a local address of the sandbox."""

    protocol: str
    address: str
    port: int


Mounts = Sequence[MountLine]
Details = Mapping[str, Any]


def _counts() -> Counts:
    return defaultdict(Counter)


@dataclass
class Observed:
    """One run. `lost`: the number of lost records, because of which the summary may be incomplete."""

    calls: Counts = field(default_factory=_counts)  # (name, True if by a 32-bit program)
    refused: Counts = field(default_factory=_counts)  # name; with EPERM, EACCES or ENOSYS
    capabilities: Counts = field(default_factory=_counts)
    capabilities_refused: Counts = field(default_factory=_counts)
    read: Counts = field(default_factory=_counts)  # path
    written: Counts = field(default_factory=_counts)  # path
    programs: Counts = field(default_factory=_counts)  # path
    connected: Counts = field(default_factory=_counts)  # Peer
    bound: Counts = field(default_factory=_counts)  # Peer
    sockets: Counts = field(default_factory=_counts)  # unix sockets
    families: Counts = field(default_factory=_counts)  # address families of created sockets, as numbers
    alerts: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0

    def called(self, names: Iterable[str]) -> bool:
        """Returns True if any of these calls was made."""
        made = {name for name, _ in self.calls}
        return any(name in made for name in names)


def _shown(device: str, path: str, mounts: Mounts) -> str:
    """Converts a path on a filesystem to the path in the sandbox; empty if it is on no mount.

    Of several mounts of one file the first counts. The last are masks, which cover files with the host's
    /dev/null. In a user namespace the sandbox's own /dev/null is a mount of the host's, too.
    """
    longest, shown = -1, ""
    for mount in mounts:
        root = mount.root.rstrip("/")
        inside = path == mount.root or path.startswith(f"{root}/")
        if mount.device == device and inside and len(root) > longest:
            longest, shown = len(root), (mount.target.rstrip("/") + path[len(root) :]) or "/"
    return shown


def observe(
    rows: Iterable[Sequence[Any]],
    records: Iterable[Mapping[str, Any]],
    mounts: Mounts,
    lost: int,
) -> Observed:
    """Summarises a run from the agent's counts (`rows`) and its event records."""
    seen = Observed(lost=lost)
    _count_rows(seen, rows)
    for record in records:
        if record.get("kind") == "alert":
            seen.alerts.append(dict(record))
        elif take := _TAKERS.get(str(record.get("event"))):
            program = str((record.get("process") or {}).get("comm") or "?")
            take(seen, record.get("details") or {}, program, mounts)
    return seen


def _count_rows(seen: Observed, rows: Iterable[Sequence[Any]]) -> None:
    from ringfence_linux.capabilities import CAPABILITIES
    from ringfence_runtime.security.seccomp import call_names

    names = {0: call_names(""), 1: call_names(_COMPAT)}
    ordered = list(CAPABILITIES)
    for kind, number, compat, program, times in rows:
        if kind in (_CALL, _CALL_REFUSED):
            name = names[1 if compat else 0](number)
            if kind == _CALL:
                seen.calls[name, bool(compat)][program] += times
            else:
                seen.refused[name][program] += times
        elif number < len(ordered):
            into = seen.capabilities if kind == _CAPABILITY else seen.capabilities_refused
            into[ordered[number]][program] += times


def _opened(seen: Observed, details: Details, program: str, mounts: Mounts) -> None:
    path = _shown(str(details.get("device")), str(details.get("path")), mounts)
    if not path:
        return
    if "write" in str(details.get("access")):
        seen.written[path][program] += 1
    if "read" in str(details.get("access")) or "write" not in str(details.get("access")):
        seen.read[path][program] += 1


def _executed(seen: Observed, details: Details, program: str, _mounts: Mounts) -> None:
    seen.programs[str(details.get("path"))][program] += 1


def _peer(details: Mapping[str, Any]) -> Peer:
    address, port = str(details.get("address")), details.get("port")
    return Peer(str(details.get("protocol") or "tcp"), address, port if isinstance(port, int) else 0)


def _connected(seen: Observed, details: Details, program: str, _mounts: Mounts) -> None:
    seen.connected[_peer(details)][program] += 1


def _bound(seen: Observed, details: Details, program: str, _mounts: Mounts) -> None:
    seen.bound[_peer(details)][program] += 1


def _unix(seen: Observed, details: Details, program: str, _mounts: Mounts) -> None:
    seen.sockets[str(details.get("socket") or details.get("path") or "?")][program] += 1


def _socket(seen: Observed, details: Details, program: str, _mounts: Mounts) -> None:
    family = details.get("family")
    number = getattr(socket, family, None) if isinstance(family, str) else family
    if isinstance(number, int):
        seen.families[int(number)][program] += 1


_TAKERS = {
    "file.open": _opened,
    "process.exec": _executed,
    "network.connect": _connected,
    "network.sendmsg": _connected,
    "network.bind": _bound,
    "unix.connect": _unix,
    "socket": _socket,
}
