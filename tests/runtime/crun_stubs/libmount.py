# SPDX-License-Identifier: Apache-2.0
"""The three members of python3-libmount that crun's suite uses, for machines without that package."""

from __future__ import annotations

from pathlib import Path

__all__ = ["Filesystem", "Table"]


class Filesystem:
    """One line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields, (self.fstype, self.source, self.fs_options) = left.split(), right.split()[:3]
        self.root, self.target, self.vfs_options = fields[3:6]


class Table:
    """A mountinfo file."""

    def __init__(self, path: str) -> None:
        self.lines = [Filesystem(line) for line in Path(path).read_text().splitlines() if " - " in line]

    def find_target(self, target: str) -> Filesystem:
        """The topmost mount at a path."""
        return next(entry for entry in reversed(self.lines) if entry.target == target)
