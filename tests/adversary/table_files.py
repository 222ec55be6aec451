# SPDX-License-Identifier: Apache-2.0
"""Attacks on files of the host."""

from __future__ import annotations

from tests.adversary.attack import Attack
from tests.adversary.effects import exists, gone, mode_is
from tests.adversary.kinds import PRIV

__all__ = ["ATTACKS"]

_ROOT = "/proc/{victim}/root{target}"
_NAMES = (
    ("symlink", "link file", exists("{target}/link")),
    ("mkdir", "made", exists("{target}/made")),
    ("unlink", "file", gone("{target}/file")),
    ("rename", "file moved", exists("{target}/moved")),
    ("link", "file also", exists("{target}/also")),
    ("chmod", "file", mode_is("{target}/file", 0o777)),
    ("mknod", "pipe", exists("{target}/pipe")),
)

#: by the root of a host process (B8), by the path, and by directories that give no access
_BY_ROOT = tuple(
    Attack(
        "B8",
        f"{call} by {way or 'descriptor'}",
        f"name{way and '_' + way} {call} {_ROOT} {words}",
        f"name{way and '_' + way} {call} {{volume}} {words}",
        effect,
        (PRIV,),
        short=(call, way) in {("symlink", "path"), ("unlink", "")},
    )
    for call, words, effect in _NAMES
    for way in ("path", "", "cwd", "root")
)

ATTACKS: tuple[Attack, ...] = _BY_ROOT
