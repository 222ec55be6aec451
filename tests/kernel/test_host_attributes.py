# SPDX-License-Identifier: Apache-2.0
"""Inode flags and times of the host's files: what needs no descriptor for writing."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.abi import TREE_GIVEN, TREE_HOST, EventKind
from ringfence.policy.constants import IOCTL_REQUESTS
from tests.kernel.lsm import mounted
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule
from tests.kernel.trees import register
from tests.support import force
from tests.support.cgroups import Cgroup

pytestmark = pytest.mark.root
BOTH_WAYS = pytest.mark.parametrize(
    "probes", [{"lsm": True}, {"also": ("ioctl",)}], indirect=True, ids=["lsm", "kill"]
)
BY_HOOK = pytest.mark.parametrize("probes", [{"lsm": True}], indirect=True)
TREE = 1  # operand of ioctl and setxattr
_GETFLAGS, _SETFLAGS = 0x80086601, IOCTL_REQUESTS["FS_IOC_SETFLAGS"][0]
_NODUMP, _FILE_SETATTR = 0x40, 469
SCRIPTS = {
    "flags": (
        f"file = os.open(path, os.O_RDONLY); had = fcntl.ioctl(file, {_GETFLAGS}, bytes(4)); "
        f"fcntl.ioctl(file, {_SETFLAGS}, struct.pack('i', struct.unpack('i', had)[0] | {_NODUMP}))"
    ),
    "times": "os.utime(os.open(path, os.O_RDONLY), (1, 1))",
    "file_setattr": (
        f"checked(ctypes.CDLL(None, use_errno=True).syscall({_FILE_SETATTR}, -100, path.encode(), "
        "struct.pack('QIIII', 0x80, 0, 0, 0, 0), 24, 0))"
    ),
}
_CHANGED = """
import ctypes, fcntl, os, struct, sys
path = sys.argv[1]
def checked(status):
    if status:
        raise OSError(ctypes.get_errno(), "")
try:
    {change}
except OSError as error:
    sys.exit(error.errno)
"""


@pytest.fixture
def host(probes: Probes, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A file of the host and one that is given, on a filesystem that knows inode flags."""
    subprocess.run(["modprobe", "loop"], check=False, capture_output=True)  # in a guest nothing loads it
    image = tmp_path / "image"
    image.write_bytes(bytes(8 << 20))
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    (where := tmp_path / "host").mkdir()
    with mounted("-o", "loop", image, where):
        (where / "volume").mkdir()
        for name in ("file", "volume/file"):
            (where / name).write_text("kept")
        register(probes, where, {where / "volume": TREE_GIVEN})
        yield where / "file", where / "volume/file"
    probes.kernel.map("host_trees").delete_all()


def changed(cgroup: Cgroup, change: str, path: Path) -> int:
    """The status of a program that makes the change: an errno, or the negative signal."""
    script = _CHANGED.format(change=SCRIPTS[change])
    return cgroup.run([sys.executable, "-c", script, str(path)], capture_output=True).returncode


def _flags(path: Path) -> str:
    return subprocess.check_output(["lsattr", str(path)], text=True).split()[0]


@BOTH_WAYS
def test_inode_flags_of_a_file_of_the_host_are_not_changed(
    probes: Probes, by_hook: bool, cgroup: Cgroup, host: tuple[Path, Path]
) -> None:
    """By the descriptor's tree; those of a volume are, and so are the host's by no such request."""
    theirs, given = host
    probes.enforce(
        Rule(EventKind.SYS_IOCTL, "deny" if by_hook else "kill", {0: {_SETFLAGS}, TREE: {TREE_HOST}})
    )
    assert changed(cgroup, "flags", given) == 0
    assert changed(cgroup, "flags", theirs) == (errno.EPERM if by_hook else -signal.SIGKILL)
    found = [_flags(path) for path in host]
    assert "d" in found[1]
    assert not by_hook or "d" not in found[0]


@BY_HOOK
@pytest.mark.parametrize("change", ["times", "file_setattr"])
def test_other_attributes_of_a_file_of_the_host_are_not_changed(
    probes: Probes, cgroup: Cgroup, host: tuple[Path, Path], change: str
) -> None:
    """Times by a descriptor for reading, and flags by their own call; mode and size have other events."""
    theirs, given = host
    if changed(cgroup, change, given) == errno.ENOSYS:
        force.elsewhere("this kernel has no file_setattr (from 6.17 on)")
    before = theirs.stat()
    probes.enforce(Rule(EventKind.SYS_SETXATTR, "deny", {TREE: {TREE_HOST}}))
    assert changed(cgroup, change, theirs) == errno.EPERM
    assert changed(cgroup, change, given) == 0
    assert theirs.stat() == before
    script = "import os, sys; os.truncate(sys.argv[1], 1); os.chmod(sys.argv[1], 0o600)"
    assert cgroup.run([sys.executable, "-c", script, str(theirs)]).returncode == 0
