# SPDX-License-Identifier: Apache-2.0
"""The node's device drivers and their numbers, for rules with `device: c driver NAME` or `c misc NAME`.

Many drivers get their number when they are loaded, so a policy cannot know it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

__all__ = ["Drivers", "node_drivers"]

_HEADS = {"Character devices:": "c", "Block devices:": "b"}
_MISC = 10  # the major of miscellaneous devices


def node_drivers(proc: Path = Path("/proc")) -> dict[str, frozenset[int]]:
    """Returns the majors of drivers, and the numbers of miscellaneous devices, by the words of rules.

    Files that cannot be read have no drivers.
    """
    found: dict[str, frozenset[int]] = {}
    for word, number in (*_majors(proc), *_miscellaneous(proc)):
        found[word] = found.get(word, frozenset()) | {number}
    return found


def _majors(proc: Path) -> Iterator[tuple[str, int]]:
    kind = ""
    for line in _lines(proc / "devices"):
        kind = _HEADS.get(line, kind)
        number, _, name = line.strip().partition(" ")
        if kind and number.isdigit() and name:
            yield f"{kind} driver {name}", int(number)


def _miscellaneous(proc: Path) -> Iterator[tuple[str, int]]:
    for line in _lines(proc / "misc"):
        number, _, name = line.strip().partition(" ")
        if number.isdigit() and name:
            yield f"c misc {name}", _MISC << 20 | int(number)


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []


class Drivers:
    """The node's current drivers, with change detection."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self.now: Mapping[str, frozenset[int]] = node_drivers(proc)

    def changed(self) -> bool:
        """Reads them again. Returns True if they differ from the last ones."""
        before, self.now = self.now, node_drivers(self._proc)
        return before != self.now
