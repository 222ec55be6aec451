# SPDX-License-Identifier: Apache-2.0
"""Users from the image's own /etc/passwd and /etc/group, read below its root and never through NSS.

The host's libnss would load libraries (of the image, after a chroot: CVE-2019-14271), and the host has
different users.
"""

from __future__ import annotations

import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.images.errors import ImageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["User", "resolve_user"]

_RESOLVE = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS | syscalls.RESOLVE_NO_XDEV
MAX_FILE = 4 << 20
MAX_ID = (1 << 31) - 1  # CVE-2024-40635: a larger number became root in another runtime
MAX_GROUPS = 1024


class User:
    """Ids of the container's user, and its home directory in the image (`/` if it has none)."""

    __slots__ = ("gid", "groups", "home", "uid")

    def __init__(self, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = groups
        self.home = home


def _read(root: int, path: str) -> list[list[str]]:
    """The records of a file of users or groups; [] where the image has none."""
    try:
        fd = syscalls.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=_RESOLVE)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ImageError(f"/{path} of the image cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError(f"/{path} of the image is not a regular file")
        data = b""
        while (part := os.read(fd, 1 << 16)) and len(data) <= MAX_FILE:
            data += part
    finally:
        os.close(fd)
    if len(data) > MAX_FILE:
        raise ImageError(f"/{path} of the image has more than {MAX_FILE} bytes")
    return [line.split(":") for line in data.decode("utf-8", "surrogateescape").split("\n")]


def _number(text: str, what: str) -> int | None:
    """An id, None for a name."""
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text) if len(text) < 20 else MAX_ID + 1
    if value > MAX_ID:
        raise ImageError(f"{what} {show(text)} is out of range")
    return value


def _listed(text: str) -> int | None:
    """An id of a file's line; a line with anything else is passed over, as every other reader does."""
    digits = text.isascii() and text.isdigit() and len(text) < 20
    return int(text) if digits and int(text) <= MAX_ID else None


def _users(root: int) -> Iterator[tuple[str, int, int, str]]:
    for fields in _read(root, "etc/passwd"):
        if len(fields) >= 6 and fields[0]:
            uid, gid = _listed(fields[2]), _listed(fields[3])
            if uid is not None and gid is not None:
                yield fields[0], uid, gid, fields[5]


def _groups(root: int) -> Iterator[tuple[str, int, list[str]]]:
    for fields in _read(root, "etc/group"):
        if len(fields) >= 4 and fields[0]:
            gid = _listed(fields[2])
            if gid is not None:
                yield fields[0], gid, fields[3].split(",")


def resolve_user(root: int, spec: str) -> User:
    """`user`, `uid`, `user:group`, `uid:gid` and mixtures; `root` is a descriptor of the root filesystem.

    A name that the image does not know is an error; a number needs no entry. As in Docker, a name is looked
    up before a number of the same letters, and a given group drops the supplementary ones.
    """
    user, colon, group = spec.partition(":")
    user = user or "0"
    number = _number(user, "user")
    known = None
    for entry in _users(root):
        if entry[0] == user:
            known = entry
            break
        if known is None and number is not None and entry[1] == number:
            known = entry
    if known is None and number is None:
        raise ImageError(f"the image has no user {show(user)}")
    name, uid, gid, home = known or ("", number or 0, 0, "/")
    groups: tuple[int, ...] = ()
    if colon and group:
        gid = _group(root, group)
    elif name:
        groups = tuple(sorted({gid for _, gid, members in _groups(root) if name in members}))
    if len(groups) > MAX_GROUPS:
        raise ImageError(f"user {show(user)} is in more than {MAX_GROUPS} groups")
    return User(uid, gid, groups, home if home.startswith("/") and home.isprintable() else "/")


def _group(root: int, group: str) -> int:
    number = _number(group, "group")
    for name, gid, _ in _groups(root):
        if name == group:
            return gid
    if number is None:
        raise ImageError(f"the image has no group {show(group)}")
    return number
