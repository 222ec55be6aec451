# SPDX-License-Identifier: Apache-2.0
"""Files of the host by the kernel's numbers."""

from __future__ import annotations

import os
from pathlib import Path

from ringfence.bpf.host import UNKNOWN, FileIdentity, identify, mount_devices, root_identity


def test_a_file_has_the_device_of_its_mount(tmp_path: Path) -> None:
    """Not the device of stat(2), which differs on overlayfs and Btrfs."""
    file = tmp_path / "file"
    file.touch()
    every = dict.fromkeys(mount_devices(Path("/proc/self/mountinfo").read_text()), "8:1")
    with file.open() as opened:
        found = identify(opened.fileno(), every)
    assert found == FileIdentity(8 << 20 | 1, file.stat().st_ino)


def test_an_unknown_mount_keeps_the_device_of_stat(tmp_path: Path) -> None:
    """As for a process in another mount namespace than the table's."""
    status = tmp_path.stat()
    packed = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert identify(fd, {}) == FileIdentity(packed, status.st_ino)
    finally:
        os.close(fd)


def test_devices_are_read_from_mountinfo() -> None:
    """The third field, by the first."""
    text = "22 1 253:0 / / rw - ext4 /dev/x rw\n40 22 0:23 / /proc rw - proc proc rw\nbroken\n"
    assert mount_devices(text) == {"22": "253:0", "40": "0:23"}


def test_the_hosts_root_is_that_of_process_1_or_the_agents(tmp_path: Path) -> None:
    """Without access to either there is no guess: no directory has inode 0."""
    assert root_identity(tmp_path) == UNKNOWN == (0, 0)
    assert root_identity().inode > 0
