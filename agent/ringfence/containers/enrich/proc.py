# SPDX-License-Identifier: Apache-2.0
"""The actual posture of a running task, from /proc/PID; config.json has the requested one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ringfence.containers.enrich import mounts, safejson
from ringfence.containers.model import Posture
from ringfence.containers.posture import SECCOMP_MODES, scored
from ringfence_linux import capabilities, namespaces
from ringfence_linux.procfs import start_ticks, ticks_of

__all__ = ["posture_of_task"]

MOUNTINFO_MAX = 512 << 10


def posture_of_task(pid: int, start_ns: int, proc: Path = Path("/proc")) -> Posture | None:
    """Returns the posture of one process; None if it is gone.

    The start time is compared before and after, so that the posture is not that of a reused PID. `start_ns` 0
    means unknown; then the start time must at least not change meanwhile.
    """
    before = start_ticks(pid, proc)
    if before is None or (start_ns and before != ticks_of(start_ns)):
        return None
    base = proc / str(pid)
    try:
        status = _fields(safejson.read_text(base / "status", size_max=65536))
        task_mounts = safejson.read_text(base / "mountinfo", size_max=MOUNTINFO_MAX)
        host_mounts = _optional(proc / "1/mountinfo") or _optional(proc / "self/mountinfo")
        posture = replace(
            _of_status(status),
            uid_map=_uid_map(_optional(base / "uid_map")),
            apparmor=_apparmor(_optional(base / "attr/current")),
            user_namespace=not _same_namespace(base, proc, "user"),
            sensitive_mounts=mounts.from_mountinfo(task_mounts, host_mounts),
        )
    except (FileNotFoundError, safejson.Unusable):
        return None
    return scored(posture) if start_ticks(pid, proc) == before else None


def _optional(path: Path) -> str:
    try:
        return safejson.read_text(path, size_max=MOUNTINFO_MAX)
    except (FileNotFoundError, safejson.Unusable):
        return ""


def _fields(status: str) -> dict[str, str]:
    """Returns the fields of /proc/PID/status. A task's name cannot add one: the kernel escapes newlines."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in status.split("\n"))}


def _of_status(status: dict[str, str]) -> Posture:
    seccomp = status.get("Seccomp", "")
    return Posture(
        capabilities=_names(status.get("CapEff", "")),
        bounding=_names(status.get("CapBnd", "")),
        seccomp=SECCOMP_MODES[int(seccomp)] if seccomp in ("0", "1", "2") else None,
        no_new_privs={"0": False, "1": True}.get(status.get("NoNewPrivs", "")),
    )


def _names(mask: str) -> tuple[str, ...] | None:
    try:
        return capabilities.names(int(mask, 16))
    except ValueError:
        return None


def _uid_map(text: str) -> tuple[tuple[int, int, int], ...]:
    rows = (line.split() for line in text.splitlines()[:16])
    return tuple(
        (int(row[0]), int(row[1]), int(row[2]))
        for row in rows
        if len(row) == 3 and all(n.isdigit() for n in row)
    )


def _apparmor(text: str) -> str | None:
    label = text.rstrip("\0\n")[: safejson.TEXT_MAX]
    return label or None


def _same_namespace(base: Path, proc: Path, name: str) -> bool:
    links = namespaces.link(base.name, name, proc), namespaces.link("self", name, proc)
    return "" in links or links[0] == links[1]
