# SPDX-License-Identifier: Apache-2.0
"""The programs that the kernel may run on this node: those that it was told of before the agent came, and
those that the configuration adds. Nothing here writes anything.

Rules know all others by `known: no` of the event kernel.helper. What somebody wrote into core_pattern before
the agent started is known: the agent cannot tell who did.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ringfence.abi import HELPER_KEY
from ringfence.containers.host import host_root
from ringfence.policy.operand import fnv1a

__all__ = ["Helper", "configured", "find", "host_root", "keys"]

#: files that hold a program's path; of core_pattern and poweroff_cmd the first word, the former behind a `|`
_SETTINGS = (
    "proc/sys/kernel/modprobe",
    "proc/sys/kernel/core_pattern",
    "proc/sys/kernel/hotplug",
    "proc/sys/kernel/poweroff_cmd",
    "sys/kernel/uevent_helper",
)
#: paths that lie in the kernel's source: kernel/reboot.c, security/keys, net/bridge, fs/nfsd, fs/nfs, drbd
_BUILT_IN = (
    "/sbin/poweroff",
    "/sbin/reboot",
    "/sbin/request-key",
    "/sbin/bridge-stp",
    "/sbin/nfsdcltrack",
    "/sbin/nfs_cache_getent",
    "/sbin/drbdadm",
)


class Helper(NamedTuple):
    """A program: as the kernel is told of it, and which file that is. device as the kernel packs it."""

    path: str
    device: int
    inode: int


def configured(root: Path = Path("/")) -> Iterator[str]:
    """The paths that the kernel has been told, on the host whose root this is."""
    for name in _SETTINGS:
        with suppress(OSError):
            yield from _program((root / name).read_text())
    for mount in _cgroup_mounts(root):
        with suppress(OSError):
            yield from _program((root / mount.lstrip("/") / "release_agent").read_text())
    yield from _BUILT_IN


def _program(setting: str) -> Iterator[str]:
    words = setting.strip().removeprefix("|").split()
    if words and words[0].startswith("/"):
        yield words[0]


def _cgroup_mounts(root: Path) -> Iterator[str]:
    for fields, kind in _mounts(root):
        if kind == "cgroup" and fields[3] == "/":
            yield _unescaped(fields[4])


def _mounts(root: Path) -> Iterator[tuple[list[str], str]]:
    with suppress(OSError):
        for line in (root / "proc/1/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            yield before.split(), after.split(" ", 1)[0]


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def find(paths: Iterable[str], root: Path = Path("/")) -> list[Helper]:
    """Those of the paths that are there."""
    devices = {fields[0]: fields[2] for fields, _ in _mounts(root)}
    found = {}
    for path in paths:
        with suppress(OSError):
            found[path] = _identify(path, root, devices)
    return list(found.values())


def _identify(path: str, root: Path, devices: dict[str, str]) -> Helper:
    """The device is the mount's: overlayfs and Btrfs tell stat(2) others than the kernel's own."""
    fd = os.open(root / path.lstrip("/"), os.O_PATH | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        fact = re.search(r"^mnt_id:\s*(\d+)", Path(f"/proc/self/fdinfo/{fd}").read_text(), re.M)
    finally:
        os.close(fd)
    numbers = devices.get(fact[1], "") if fact else ""
    major, minor = map(int, numbers.split(":")) if numbers else _split(status.st_dev)
    return Helper(path, major << 20 | minor, status.st_ino)


def _split(device: int) -> tuple[int, int]:
    return os.major(device), os.minor(device)


def keys(helpers: Iterable[Helper]) -> dict[bytes, bytes]:
    """For the map `helpers`: each by its file, and by its path, which is what is left of a script."""
    found = {}
    for helper in helpers:
        found[HELPER_KEY.pack(helper.device, helper.inode)] = b"\1\0\0\0"
        found[HELPER_KEY.pack(0, fnv1a(helper.path.encode()))] = b"\1\0\0\0"
    return found
