# SPDX-License-Identifier: Apache-2.0
"""Which programs of a host its kernel may run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ringfence.abi import HELPER_KEY
from ringfence.daemon.helpers import Helper, configured, find, keys
from ringfence.policy.operand import fnv1a


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with one v1 hierarchy, whose files are laid out below a directory."""
    for name, text in {
        "proc/sys/kernel/modprobe": "/sbin/modprobe\n",
        "proc/sys/kernel/core_pattern": "|/usr/lib/dump -P %P %u\n",
        "proc/sys/kernel/poweroff_cmd": "/sbin/poweroff\n",
        "sys/kernel/uevent_helper": "\n",
        "sys/fs/cgroup/a b/release_agent": "/usr/lib/agent\n",
        "proc/1/mountinfo": "25 1 0:30 / /sys/fs/cgroup/a\\040b rw - cgroup cgroup rw,cpu\n"
        "26 1 0:31 /x /sys/fs/cgroup/c rw - cgroup cgroup rw,pids\n",
        "usr/lib/dump": "#!/bin/sh\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_helpers_are_those_that_the_kernel_was_told_of(root: Path) -> None:
    """Each once named, without arguments; an empty setting names none."""
    found = list(configured(root))
    assert found[:4] == ["/sbin/modprobe", "/usr/lib/dump", "/sbin/poweroff", "/usr/lib/agent"]
    assert "/sbin/request-key" in found


@pytest.mark.parametrize("text", ["core", "|core", "", "core.%p"])
def test_a_pattern_that_is_no_program_is_none(root: Path, text: str) -> None:
    """A core file's name is not run."""
    (root / "proc/sys/kernel/core_pattern").write_text(text)
    assert "core" not in "".join(configured(root))


def test_only_what_is_there_is_known(root: Path) -> None:
    """By the file, whatever other name leads to it."""
    (root / "usr/lib/link").symlink_to("dump")
    status = (root / "usr/lib/dump").stat()
    first, second = find(["/usr/lib/dump", "/usr/lib/link", "/nowhere"], root)
    assert (first.inode, first.device) == (second.inode, second.device)
    assert first.inode == status.st_ino
    assert first.device == os.major(status.st_dev) << 20 | os.minor(status.st_dev)


def test_a_mount_says_the_device(root: Path) -> None:
    """stat(2) on overlayfs and Btrfs tells a device that the kernel's superblock does not have."""
    fd = os.open(root / "usr/lib/dump", os.O_PATH)
    mount = next(
        line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "mnt_id" in line
    ).split()[1]
    os.close(fd)
    (root / "proc/1/mountinfo").write_text(f"{mount} 1 7:9 / / rw - btrfs x rw\n")
    assert find(["/usr/lib/dump"], root)[0].device == 7 << 20 | 9


def test_a_helper_is_known_by_its_file_and_by_its_path() -> None:
    """Of a script, the kernel has only the path left when its interpreter runs."""
    made = keys([Helper("/x", 5, 6)])
    assert set(made) == {HELPER_KEY.pack(5, 6), HELPER_KEY.pack(0, fnv1a(b"/x"))}
