# SPDX-License-Identifier: Apache-2.0
"""Copies a directory by descriptors, for `tmpcopyup`: symlinks stay symlinks, devices are left out.

The source is part of an image: its size, depth and number of files have limits.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["MAX_BYTES", "copy_directory"]

MAX_ENTRIES = 100_000
MAX_BYTES = 1 << 30
MAX_DEPTH = 128  # two descriptors are open for each directory on the way
_PIECE = 1 << 20
_INTO = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class _Budget:
    """What remains of the limits."""

    def __init__(self) -> None:
        self.entries = MAX_ENTRIES
        self.bytes = MAX_BYTES

    def take(self, entries: int = 0, size: int = 0) -> None:
        self.entries -= entries
        self.bytes -= size
        if self.entries < 0 or self.bytes < 0:
            raise OSError(errno.E2BIG, "there is too much to copy")


def copy_directory(source: int, target: int) -> None:
    """Copies the content of `source` into `target`. Both are descriptors of directories and stay open."""
    budget = _Budget()
    # (source, target, names to come) of each directory on the way down
    stack = [(os.dup(source), os.dup(target), _begin(source, target, budget))]
    try:
        while stack:
            inner, outer, names = stack[-1]
            if not names:
                os.close(inner)
                os.close(outer)
                stack.pop()
                continue
            below = _copy_entry(inner, outer, names.pop(), budget)
            if below is not None:
                stack.append((*below, _begin(*below, budget)))
            if len(stack) > MAX_DEPTH:
                raise OSError(errno.ENAMETOOLONG, "directories lie too deep to be copied")
    finally:
        for inner, outer, _ in stack:
            os.close(inner)
            os.close(outer)


def _begin(source: int, target: int, budget: _Budget) -> list[str]:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, status.st_mode & 0o7777)
    names = os.listdir(source)
    budget.take(entries=len(names))
    return names


def _copy_entry(source: int, target: int, name: str, budget: _Budget) -> tuple[int, int] | None:
    """Copies one entry. For a directory, returns the descriptors of it and of its copy, which is still
    empty.
    """
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        inner = os.open(name, _INTO, dir_fd=source)
        try:
            return inner, os.open(name, _INTO, dir_fd=target)
        except OSError:
            os.close(inner)
            raise
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target, name, budget)
    return None


def _copy_file(source: int, target: int, name: str, budget: _Budget) -> None:
    reading = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    writing = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    inner = os.open(name, reading, dir_fd=source)
    try:
        status = os.fstat(inner)
        budget.take(size=status.st_size)  # also of a sparse file: its holes become zeros
        outer = os.open(name, writing, 0o600, dir_fd=target)
        try:
            left = status.st_size  # a file that grows meanwhile is not copied further
            while left and (sent := os.sendfile(outer, inner, None, min(left, _PIECE))):
                left -= sent
            os.fchown(outer, status.st_uid, status.st_gid)
            os.fchmod(outer, status.st_mode & 0o7777)
        finally:
            os.close(outer)
    finally:
        os.close(inner)
