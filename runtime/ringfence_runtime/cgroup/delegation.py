# SPDX-License-Identifier: Apache-2.0
"""Delegates the container's cgroup to the workload's user (config-linux.md#cgroup-ownership).

Only if the workload is meant to manage it: on version 2, in its own cgroup namespace, mounted writable.
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

_LIST = "/sys/kernel/cgroup/delegate"  # the kernel's list of delegatable files of a cgroup
_FALLBACK = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def wants_delegation(config: Config) -> bool:
    """Returns True if the specification requires it: a new cgroup namespace, and a writable mount."""
    if not config.linux.new("cgroup") or config.process is None:
        return False
    return any(
        mount.source == "cgroup"
        and mount.destination.rstrip("/") == "/sys/fs/cgroup"
        and "ro" not in mount.options
        for mount in config.mounts
    )


def delegate(group: Cgroup, config: Config) -> None:
    """Changes the owner of the directory and of the files in the kernel's list only."""
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
            continue  # a file of a missing controller


def _on_host(uid: int, ranges: Sequence[IdMapping], *, mapped: bool) -> int | None:
    if not mapped:
        return uid
    for item in ranges:
        if item.container <= uid < item.container + item.size:
            return item.host + uid - item.container
    return None
