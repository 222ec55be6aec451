# SPDX-License-Identifier: Apache-2.0
"""Finds out whether files (policies, custom probes) changed, by polling the identity and time of
each. Reads no content.

Polling sees what inotify misses: a ConfigMap's symlink that is swapped, a directory that comes and
goes, a network filesystem. A change counts only when two looks in a row agree, so a half-written
file is not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["FileWatch"]

_MAX_FILES = 20_000
_SUFFIXES = (".yaml", ".yml")  # what the loader reads
Print = tuple[tuple[str, int, int, int, int], ...]


class FileWatch:
    """Looks at paths (files, and directories of them, at any depth)."""

    def __init__(self, paths: Sequence[Path], *, suffixes: tuple[str, ...] = _SUFFIXES) -> None:
        self._paths, self._suffixes = paths, suffixes
        self._known = self._pending = fingerprint(paths, suffixes)

    def changed(self) -> bool:
        """Returns True once for every change that has settled."""
        now = fingerprint(self._paths, self._suffixes)
        settled, self._pending = now == self._pending, now
        if not settled or now == self._known:
            return False
        self._known = now
        return True

    def forget(self) -> None:
        """Take the present state as known: the files are read at this moment."""
        self._known = self._pending = fingerprint(self._paths, self._suffixes)


def fingerprint(paths: Iterable[Path], suffixes: tuple[str, ...] = _SUFFIXES) -> Print:
    """Every such file with device, inode, size and times; absent files are left out."""
    found: list[tuple[str, int, int, int, int]] = []
    for path in paths:
        if path.is_dir():
            for directory, names, files in os.walk(path, followlinks=False):
                # Hidden ones belong to a ConfigMap (..data) or an editor; the loader skips them,
                # too.
                names[:] = sorted(name for name in names if not name.startswith("."))
                for name in sorted(files):
                    if name.endswith(suffixes) and not name.startswith(".") and len(found) < _MAX_FILES:
                        _look(os.path.join(directory, name), found)
        else:
            _look(str(path), found)
    return tuple(found)


def _look(path: str, found: list[tuple[str, int, int, int, int]]) -> None:
    try:
        state = os.stat(path)  # through symlinks: a ConfigMap swaps the one in the middle
    except OSError:
        return
    found.append((path, state.st_dev, state.st_ino, state.st_size, max(state.st_mtime_ns, state.st_ctime_ns)))
