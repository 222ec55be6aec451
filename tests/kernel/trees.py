# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of host trees: entries of the map by hand, and the rule."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ringfence.abi import (
    TREE_HOST,
    TREE_KEY,
    TREE_OF_HOST,
    TREE_OF_LOGS,
    TREE_OF_STORAGE,
    TREE_OF_TERMINALS,
    TREE_SHIFT,
    TREE_TERMINAL,
    EventKind,
)
from ringfence.bpf.host import identify, mount_devices
from tests.kernel.lsm import FLAGS, TYPE
from tests.kernel.probes import Probes
from tests.kernel.rules import Rule

__all__ = ["host_rule", "register", "terminal_rule"]


_WHOLE = (TREE_OF_HOST, TREE_OF_STORAGE, TREE_OF_TERMINALS, TREE_OF_LOGS)


def host_rule(action: str, tree: int = TREE_HOST) -> Rule:
    """Returns the rule `tree: host`, or another one, with `access: write`."""
    return Rule(
        EventKind.FILE_OPEN,
        action,
        {FLAGS: {1, 2}, TYPE: {tree << TREE_SHIFT}},
        {FLAGS: os.O_ACCMODE, TYPE: 15 << TREE_SHIFT},
    )


def terminal_rule(action: str) -> Rule:
    """Returns the rule `tree: terminal`."""
    return Rule(EventKind.FILE_OPEN, action, {TYPE: {TREE_TERMINAL << TREE_SHIFT}}, {TYPE: 15 << TREE_SHIFT})


def register(
    probes: Probes, filesystem: Path, directories: Mapping[Path, int], kind: int = TREE_OF_HOST
) -> None:
    """Makes the filesystem the host's (or of `kind`), with these directories or filesystems (TREE_*).

    Replaces what was registered before.
    """
    table = probes.kernel.map("host_trees")
    table.delete_all()
    devices = mount_devices(Path("/proc/self/mountinfo").read_text())
    for path, what in ((filesystem, kind), *directories.items()):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            device, inode = identify(fd, devices)
        finally:
            os.close(fd)
        table.set(TREE_KEY.pack(device, 0 if what in _WHOLE else inode), what)
