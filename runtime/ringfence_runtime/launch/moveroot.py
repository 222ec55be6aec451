# SPDX-License-Identifier: Apache-2.0
"""`--no-pivot`: leaving the host's tree if its root is a ramfs, which pivot_root(2) cannot detach.

A chroot alone is no barrier: a second chroot leads out of it, and so does `setns` to the own mount
namespace. So the root filesystem is moved over the root of the whole tree of the namespace. There `..`
ends for every process, and a process that enters the namespace arrives there. Only CAP_SYS_ADMIN can
uncover what is below it.
"""

from __future__ import annotations

import errno
import os

from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.launch.mounts import new_filesystem

__all__ = ["move_root"]

# A user namespace may mount one of these only if it sees another that no mount covers in part
# (mount_too_revealing in fs/namespace.c). The host's would count, and so undo the container's masks.
_REVEALING = ("proc", "sysfs")


def move_root(root: int, procfs: int) -> None:
    """Makes `root`, which is attached in this mount namespace, the root of its whole tree and of this
    process.
    """
    for path in _outside(_table(procfs), _mount_id(root, procfs)):
        _take_away(path)
    if os.stat("/").st_dev != os.fstat(root).st_dev or os.stat("/").st_ino != os.fstat(root).st_ino:
        top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _move(root, top)
        finally:
            os.close(top)
    os.fchdir(root)
    os.chroot(".")


def _move(root: int, top: int) -> None:
    try:
        syscalls.move_mount(root, top, path="/")
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        log.debug("the root filesystem lies over / already")  # if its own path could not be entered


def _read(procfs: int, name: str) -> str:
    fd = syscalls.openat2(procfs, name, os.O_RDONLY, resolve=syscalls.RESOLVE_BENEATH)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
    finally:
        os.close(fd)
    return b"".join(parts).decode(errors="surrogateescape")


def _table(procfs: int) -> list[tuple[int, int, str, str, str]]:
    """(mount, its parent, root within its filesystem, place, kind) of each line of mountinfo."""
    rows = []
    for line in _read(procfs, "self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        place = fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
        rows.append((int(fields[0]), int(fields[1]), fields[3], os.fsdecode(place), right.split(" ")[0]))
    return rows


def _mount_id(fd: int, procfs: int) -> int:
    """The id of the mount that `fd` is open on, as in mountinfo."""
    for line in _read(procfs, f"self/fdinfo/{fd}").splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "fdinfo")


def _outside(table: list[tuple[int, int, str, str, str]], root: int) -> list[str]:
    """Places of whole procfs and sysfs mounts outside the mount `root`, the last one first."""
    inside = {root}
    found: list[str] = []
    for number, parent, base, place, kind in table:
        if parent in inside:
            inside.add(number)
        elif number != root and base == "/" and kind in _REVEALING:
            found.append(place)
    return found[::-1]


def _take_away(path: str) -> None:
    """Detaches a mount. If it is locked, because another user namespace made it, covers it."""
    try:
        syscalls.umount2(path, syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        cover = new_filesystem(
            "tmpfs", "tmpfs", (("size", "0"), ("nr_inodes", "1")), syscalls.MOUNT_ATTR_RDONLY
        )
        try:
            syscalls.move_mount(cover, target, path=path)
        finally:
            os.close(cover)
            os.close(target)
