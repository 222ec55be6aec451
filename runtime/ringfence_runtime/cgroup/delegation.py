# SPDX-License-Identifier: Apache-2.0
"""The container's own cgroup, given to the user that its workload is (config-linux.md#cgroup-ownership).

Only where the workload shall manage it: on version 2, in a cgroup namespace of its own, mounted writable.
"""

from __future__ import annotations

import os

from ringfence_runtime.cgroup.hierarchy import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.spec import Config
    from ringfence_runtime.spec.mounts import IdMapping

__all__ = ["delegate", "wants_delegation"]

_LIST = "/sys/kernel/cgroup/delegate"  # which files of a cgroup may be given away, by the kernel's own word
_FALLBACK = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def wants_delegation(config: Config) -> bool:
    """What the specification asks for: a new cgroup namespace, and a mount that is not read-only."""
    if not config.linux.new("cgroup") or config.process is None:
        return False
    return any(
        mount.source == "cgroup"
        and mount.destination.rstrip("/") == "/sys/fs/cgroup"
        and "ro" not in mount.options
        for mount in config.mounts
    )


def delegate(group: Cgroup, config: Config) -> None:
    """Change the owner of the directory and of the files that the kernel names, and of nothing else."""
    if not group.is_v2 or group.unified is None or not wants_delegation(config):
        return
    assert config.process is not None
    owner = _on_host(config.process.user.uid, config.linux.uid_map, mapped="user" in config.linux.namespaces)
    if owner is None or owner == os.geteuid():
        return
    try:
        names: Sequence[str] = read(_LIST).split()
    except FileNotFoundError:
        names = _FALLBACK
    os.chown(group.unified, owner, -1)
    for name in names:
        if "/" in name:
            continue
        try:
            os.chown(f"{group.unified}/{name}", owner, -1)
        except FileNotFoundError:
            continue  # of a controller that is not there


def _on_host(uid: int, ranges: Sequence[IdMapping], *, mapped: bool) -> int | None:
    if not mapped:
        return uid
    for item in ranges:
        if item.container <= uid < item.container + item.size:
            return item.host + uid - item.container
    return None
