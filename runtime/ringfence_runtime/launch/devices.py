# SPDX-License-Identifier: Apache-2.0
"""The default devices, and device nodes that are created with the rights of the host."""

from __future__ import annotations

import errno
import os

from ringfence_linux import syscalls
from ringfence_runtime.launch.mounts import bind_tree, new_filesystem
from ringfence_runtime.spec.linux import DEVICE_TYPES, Device
from ringfence_runtime.spec.node import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringfence_runtime.spec.config import Config
    from ringfence_runtime.spec.mounts import IdMapping

__all__ = ["default_devices", "precreate"]

_DEFAULT = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)


def default_devices() -> list[Device]:
    """The devices of every container."""
    return [
        Device(
            Node({"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor}, "(default device)")
        )
        for name, major, minor in _DEFAULT
    ]


def precreate(config: Config) -> dict[str, int]:
    """Detached mounts of the configuration's nodes, created with the rights of the host for a user namespace.

    They lie on a tmpfs that is mounted nowhere. A kernel before 6.15 cannot copy out of a detached mount.
    There the host's own node of that name is bound, if it is the right device.
    """
    store = new_filesystem("tmpfs", "tmpfs", (("mode", "700"),))
    made: dict[str, int] = {}
    try:
        for index, device in enumerate(config.linux.devices):
            if device.type == "p":
                continue
            os.mknod(
                str(index), DEVICE_TYPES[device.type], os.makedev(device.major, device.minor), dir_fd=store
            )
            fd = os.open(str(index), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store)
            try:
                os.chmod(str(index), device.mode, dir_fd=store)
                uid, gid = (
                    _mapped(config.linux.uid_map, device.uid),
                    _mapped(config.linux.gid_map, device.gid),
                )
                syscalls.fchownat_empty(fd, uid, gid)
                made[device.path] = bind_tree(fd, syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return made
            finally:
                os.close(fd)
    finally:
        os.close(store)
    return made


def _mapped(ranges: Sequence[IdMapping], number: int) -> int:
    """The host's id of a container's id. An id without a mapping is the overflow id inside."""
    for item in ranges:
        if item.container <= number < item.container + item.size:
            return item.host + number - item.container
    return 65534
