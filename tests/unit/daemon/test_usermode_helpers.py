# SPDX-License-Identifier: Apache-2.0
"""Which programs of a host its kernel may run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest

from ringfence.abi import HELPER_CORE, HELPER_KEY, HELPER_OTHER
from ringfence.daemon.defence.usermode_helpers import Helper, UsermodeHelpers, configured, find, keys
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


def test_helpers_are_those_that_the_kernel_is_configured_to_run(root: Path) -> None:
    """Each once named, without arguments; an empty setting names none."""
    found = list(configured(root))
    assert [path for path, _ in found[:4]] == [
        "/sbin/modprobe",
        "/usr/lib/dump",
        "/sbin/poweroff",
        "/usr/lib/agent",
    ]
    assert ("/sbin/request-key", HELPER_OTHER) in found
    assert [path for path, use in found if use == HELPER_CORE] == ["/usr/lib/dump"]


@pytest.mark.parametrize("text", ["core", "|core", "", "core.%p"])
def test_a_pattern_that_is_no_program_is_none(root: Path, text: str) -> None:
    """A core file's name is not run."""
    (root / "proc/sys/kernel/core_pattern").write_text(text)
    assert "core" not in "".join(path for path, _ in configured(root))


def test_only_what_is_there_is_known(root: Path) -> None:
    """By the file, whatever other name leads to it."""
    (root / "usr/lib/link").symlink_to("dump")
    status = (root / "usr/lib/dump").stat()
    first, second = find(dict.fromkeys(["/usr/lib/dump", "/usr/lib/link", "/nowhere"], HELPER_OTHER), root)
    assert (first.inode, first.device) == (second.inode, second.device)
    assert first.inode == status.st_ino
    assert first.device == os.major(status.st_dev) << 20 | os.minor(status.st_dev)


def test_a_mount_says_the_device(root: Path) -> None:
    """stat(2) on overlayfs and Btrfs shows a device that the kernel's superblock does not have."""
    fd = os.open(root / "usr/lib/dump", os.O_PATH)
    mount = next(
        line for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines() if "mnt_id" in line
    ).split()[1]
    os.close(fd)
    (root / "proc/1/mountinfo").write_text(f"{mount} 1 7:9 / / rw - btrfs x rw\n")
    assert find({"/usr/lib/dump": HELPER_OTHER}, root)[0].device == 7 << 20 | 9


def test_a_helper_is_known_by_its_file_and_by_its_path() -> None:
    """Of a script, the kernel has only the path left when its interpreter runs."""
    made = keys([Helper("/x", HELPER_CORE, 5, 6, 7), Helper("/x", HELPER_OTHER, 5, 6, 7)])
    both = (HELPER_CORE | HELPER_OTHER).to_bytes(4, "little")
    path = fnv1a(b"/x")
    assert made == {HELPER_KEY.pack(5, 6, 7, path): both, HELPER_KEY.pack(0, 0, 0, path): both}


def test_bytes_that_are_no_text_end_nothing(root: Path) -> None:
    """A container may have chosen them. The path is kept as it is, and a long setting is cut."""
    (root / "proc/sys/kernel/core_pattern").write_bytes(b"|/\xff\n")
    (root / "sys/kernel/uevent_helper").write_bytes(b"/" + b"x" * 10000)
    found = [path for path, _ in configured(root)]
    assert "/\udcff" in found
    assert max(map(len, found)) == 4096
    (root / os.fsdecode(b"\xff")).write_text("")
    (helper,) = find({"/\udcff": HELPER_OTHER}, root)
    assert HELPER_KEY.pack(0, 0, 0, fnv1a(b"/\xff")) in keys([helper])


def test_an_absolute_link_begins_at_the_hosts_root(root: Path) -> None:
    """/sbin/modprobe is one to /bin/kmod; the agent of a pod has another /bin."""
    (root / "sbin").mkdir()
    (root / "sbin/modprobe").symlink_to("/usr/lib/dump")
    (helper,) = find({"/sbin/modprobe": HELPER_OTHER}, root)
    assert helper.inode == (root / "usr/lib/dump").stat().st_ino


class Written(dict[bytes, bytes]):
    """What the probes would know."""

    def update_batch(self, entries: dict[bytes, bytes]) -> None:
        self.update(entries)

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None

    def knows(self, path: Path, name: str) -> bool:
        """That file, by that name."""
        state = path.stat()
        device = os.major(state.st_dev) << 20 | os.minor(state.st_dev)
        return HELPER_KEY.pack(device, state.st_ino, state.st_ctime_ns, fnv1a(name.encode())) in self


def test_a_helper_that_was_replaced_is_known_again(root: Path) -> None:
    """As an upgrade does it: another file, renamed over it. The one before is known no more."""
    table, program = Written(), root / "usr/lib/dump"
    helpers = UsermodeHelpers(cast(Any, table), root=root)
    assert table.knows(program, "/usr/lib/dump")
    (root / "usr/lib/dump.new").write_text("#!/bin/sh\nexit\n")
    os.link(program, root / "usr/lib/dump.old")
    (root / "usr/lib/dump.new").rename(program)
    assert not table.knows(program, "/usr/lib/dump")
    helpers.refresh()
    assert table.knows(program, "/usr/lib/dump")
    assert not table.knows(root / "usr/lib/dump.old", "/usr/lib/dump")


def test_a_setting_that_changes_afterwards_is_not_trusted(root: Path) -> None:
    """That is what the rule is about. The configuration can name more."""
    table = Written()
    (root / "usr/lib/evil").write_text("")
    (root / "usr/lib/mine").write_text("")
    helpers = UsermodeHelpers(cast(Any, table), [Path("/usr/lib/mine")], root)
    (root / "proc/sys/kernel/modprobe").write_text("/usr/lib/evil\n")
    helpers.refresh()
    assert table.knows(root / "usr/lib/mine", "/usr/lib/mine")
    assert not table.knows(root / "usr/lib/evil", "/usr/lib/evil")


def test_a_root_that_cannot_be_looked_at_leaves_what_is_known(root: Path) -> None:
    """A helper must not become unknown because of us."""
    table = Written()
    helpers = UsermodeHelpers(cast(Any, table), root=root)
    before = dict(table)
    root.rename(root.with_name("away"))
    helpers.refresh()
    assert table == before
