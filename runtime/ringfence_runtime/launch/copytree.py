# SPDX-License-Identifier: Apache-2.0
"""Copy a directory by descriptors, as `tmpcopyup` asks: symlinks stay symlinks, devices are left out."""

from __future__ import annotations

import os

__all__ = ["copy_directory"]

MAX_ENTRIES = 100_000


def copy_directory(source: int, target: int, budget: list[int] | None = None) -> None:
    """Copy what is in `source` into `target`; both are directory descriptors and stay open."""
    left = [MAX_ENTRIES] if budget is None else budget
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, status.st_mode & 0o7777)
    for name in os.listdir(source):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(7, "too many files to copy")
        _copy_entry(source, target, name, left)


def _copy_entry(source: int, target: int, name: str, left: list[int]) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = status.st_mode & 0o170000
    if kind == 0o040000:
        os.mkdir(name, 0o700, dir_fd=target)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
        inner, outer = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
        try:
            copy_directory(inner, outer, left)
        finally:
            os.close(inner)
            os.close(outer)
    elif kind == 0o120000:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif kind == 0o100000:
        _copy_file(source, target, name, status)


def _copy_file(source: int, target: int, name: str, status: os.stat_result) -> None:
    inner = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=source)
    outer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=target)
    try:
        while os.sendfile(outer, inner, None, 1 << 20):
            pass
        os.fchown(outer, status.st_uid, status.st_gid)
        os.fchmod(outer, status.st_mode & 0o7777)
    finally:
        os.close(inner)
        os.close(outer)
