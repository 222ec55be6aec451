# SPDX-License-Identifier: Apache-2.0
"""JSON from outside: read with bounds, and taken apart without trust in its types.

Everything that is wrong with a document (too big, too deep, not JSON, a FIFO in its place) is an Unusable.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "LABELS_MAX",
    "TEXT_MAX",
    "Unusable",
    "children",
    "integer",
    "labels",
    "parse",
    "read",
    "read_open",
    "read_text",
    "text",
]

SIZE_MAX = 1 << 20
TEXT_MAX = 1024
LABELS_MAX = 64
LIST_MAX = 1024


class Unusable(Exception):
    """The document cannot be used; the text says why."""


def read_text(path: str | os.PathLike[str], *, size_max: int = SIZE_MAX, follow: bool = True) -> str:
    """The content of a regular file of at most `size_max` bytes. Raises FileNotFoundError, Unusable."""
    try:
        descriptor = _open_regular(path, 0 if follow else os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(os.fspath(path)) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in a path
        raise Unusable(f"cannot be opened: {error}") from error
    try:
        data = read_open(descriptor, size_max=size_max)
    finally:
        os.close(descriptor)
    return data.decode("utf-8", "surrogateescape")


def _open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """Opens a regular file. The path may come from a container, and opening a device can have an effect
    (/dev/watchdog). Raises OSError, Unusable.
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC | flags)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise Unusable("is no regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(found)


def read_open(descriptor: int, *, size_max: int = SIZE_MAX) -> bytes:
    """The content of an open regular file from its beginning, independent of its file offset. Raises
    Unusable.
    """
    data = bytearray()
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Unusable("is no regular file")
        while block := os.pread(descriptor, 65536, len(data)):
            data += block
            if len(data) > size_max:
                raise Unusable(f"is larger than {size_max} bytes")
    except OSError as error:
        raise Unusable(f"cannot be read: {error}") from error
    return bytes(data)


def parse(document: str | bytes) -> Any:
    """The value of a JSON text. Raises Unusable."""
    try:
        return json.loads(document)
    except RecursionError as error:
        raise Unusable("is nested too deeply") from error
    except ValueError as error:
        raise Unusable(f"is not JSON: {error}") from error


def read(path: Path, *, size_max: int = SIZE_MAX, follow: bool = True) -> Any:
    """The value of a JSON file. Raises FileNotFoundError, Unusable."""
    return parse(read_text(path, size_max=size_max, follow=follow))


def _descend(value: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text(value: Any, *keys: str) -> str:
    """The string there, cut at TEXT_MAX; empty when there is none, or something else."""
    found = _descend(value, keys)
    return found[:TEXT_MAX] if isinstance(found, str) else ""


def integer(value: Any, *keys: str) -> int | None:
    """The integer there (no bool, no float); None otherwise."""
    found = _descend(value, keys)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def children(value: Any, *keys: str) -> list[Any]:
    """The list there, cut at LIST_MAX; empty when there is none."""
    found = _descend(value, keys)
    return found[:LIST_MAX] if isinstance(found, list) else []


def labels(value: Any, *keys: str) -> Mapping[str, str]:
    """The map of strings there, cut at LABELS_MAX entries; what is no string is left out."""
    found = _descend(value, keys)
    if not isinstance(found, dict):
        return {}
    pairs = ((name, entry) for name, entry in found.items() if isinstance(entry, str) and len(name) <= 256)
    return {name: entry[:TEXT_MAX] for _, (name, entry) in zip(range(LABELS_MAX), pairs, strict=False)}
