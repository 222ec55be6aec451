# SPDX-License-Identifier: Apache-2.0
"""Finds names in rules that this machine lacks: sysctls, files of proc and sysfs, device majors, programs.

A policy may be written for another kernel, so this is not an error. But if all names of a list are absent,
or a name is similar to an existing one, it is probably a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from ringfence.policy.conditions import sysctl_name
from ringfence.policy.drivers import node_drivers
from ringfence.policy.model import Condition, Rule

__all__ = ["Absent", "absent_names"]

#: filesystem -> its mount point
_ROOTS = {"proc": "/proc", "sysfs": "/sys"}
_DEVICES = Path("/proc/devices")
_DEVICE = re.compile(r"([bc]) (\d+):")


class Absent(NamedTuple):
    """A name that this machine lacks, and the condition that contains it.

    `near`: a similar existing name; `alone`: all names of the list are absent.
    """

    condition: Condition
    word: str
    near: str
    alone: bool
    excepts: bool  # it is in an exception

    @property
    def warns(self) -> bool:
        """True if this is more likely a typing error than a name of another kernel."""
        return bool(self.near) or (self.alone and not self.excepts)

    def __str__(self) -> str:
        hint = f"; did you mean {self.near!r}?" if self.near else ""
        if not hint and self.alone and not self.excepts:
            hint = ", nor is any other name of this list: the rule matches nothing here"
        return f"{self.condition.operand}: {self.word!r} does not exist on this machine{hint}"


def absent_names(rule: Rule) -> Iterator[Absent]:
    """Yields the absent names of a rule and its exceptions.

    All events of a rule have the same words, so only the first one is examined.
    """
    event = rule.events[0]
    for number, match in enumerate(block[event] for block in rule.blocks):
        for condition in match:
            missing = [word for word in condition.words if _is_missing(condition.operand, word)]
            for word in missing:
                near = _near(condition.operand, word)
                if near or condition.operand != "exe":
                    alone = len(missing) == len(condition.words)
                    yield Absent(condition, word, near, alone, number > 0)


def _is_missing(operand: str, word: str) -> bool:
    if operand == "device":
        return _major_is_missing(word)
    path = _path_of(operand, word)
    return path is not None and not path.exists()


def _major_is_missing(word: str) -> bool:
    found = _DEVICE.match(word)
    if not found:
        return (" driver " in word or " misc " in word) and word not in node_drivers()
    heads = {"c": "Character devices:", "b": "Block devices:"}
    section = ""
    try:
        lines = _DEVICES.read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        if line.endswith(":"):
            section = line
        elif section == heads[found[1]] and line.split() and line.split()[0] == found[2]:
            return False
    return True


def _path_of(operand: str, word: str) -> Path | None:
    if "*" in word or not word.isprintable():
        return None
    if operand == "sysctl":
        return Path("/proc/sys", sysctl_name(word))
    if operand == "exe":
        return Path(word)
    kind, colon, below = word.partition(":")
    if operand == "path" and colon and kind in _ROOTS:
        return Path(_ROOTS[kind], below.lstrip("/"))
    return None


def _near(operand: str, word: str) -> str:
    """Returns a similar existing name, or "". Programs may be in images, so they must be more similar."""
    path = _path_of(operand, word)
    if path is None:
        return ""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    found = get_close_matches(path.name, names, n=1, cutoff=0.9 if operand == "exe" else 0.8)
    return found[0] if found else ""
