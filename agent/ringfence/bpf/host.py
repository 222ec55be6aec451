# SPDX-License-Identifier: Apache-2.0
"""Identities of the host's files in the kernel's numbers.

On overlayfs and Btrfs, stat(2) reports a device other than the superblock's, which the probes compare.
So the device is taken from the mount of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ringfence_linux import mountinfo

__all__ = ["UNKNOWN", "FileIdentity", "identify", "mount_devices", "root_identity"]


class FileIdentity(NamedTuple):
    """Device as the kernel packs it (major << 20 | minor), and inode."""

    device: int
    inode: int


#: means "no file" to the probes
UNKNOWN = FileIdentity(0, 0)


def mount_devices(text: str) -> dict[str, str]:
    """Returns mount id -> MAJOR:MINOR of its superblock, from the text of a /proc/PID/mountinfo."""
    return {mount.id: mount.device for mount in mountinfo.parse(text)}


def identify(fd: int, devices: Mapping[str, str]) -> FileIdentity:
    """Identifies an open file; `devices` are those of its mount namespace. Raises OSError."""
    status = os.fstat(fd)
    mount = re.search(r"^mnt_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.M)
    numbers = devices.get(mount[1], "") if mount else ""
    major, minor = (
        map(int, numbers.split(":")) if numbers else (os.major(status.st_dev), os.minor(status.st_dev))
    )
    return FileIdentity(major << 20 | minor, status.st_ino)


def root_identity(proc: Path = Path("/proc")) -> FileIdentity:
    """Returns the root directory's identity of process 1, or of this process if that is inaccessible."""
    for process in ("1", "self"):
        with suppress(OSError):
            devices = mount_devices(mountinfo.read_text(proc / process))
            fd = os.open(proc / process / "root", os.O_PATH | os.O_CLOEXEC)
            try:
                return identify(fd, devices)
            finally:
                os.close(fd)
    return UNKNOWN
