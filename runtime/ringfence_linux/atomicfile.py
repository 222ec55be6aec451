# SPDX-License-Identifier: Apache-2.0
"""Replacing a file whole."""

from __future__ import annotations

import os

__all__ = ["replace_file"]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW


def replace_file(path: str | os.PathLike[str], data: bytes | str, *, durable: bool = False) -> None:
    """Write `PATH.new` (mode 0600) and rename it: a reader finds the old content or the new one.

    `durable`: also after a power failure. Raises OSError, and then leaves the old file.
    """
    target = os.fspath(path)
    fresh = f"{target}.new"
    try:
        _write(fresh, data.encode() if isinstance(data, str) else data, durable=durable)
        os.rename(fresh, target)
    except OSError:
        try:
            os.unlink(fresh)
        except OSError:
            pass
        raise


def _write(path: str, data: bytes, *, durable: bool) -> None:
    fd = os.open(path, _FLAGS, 0o600)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)
