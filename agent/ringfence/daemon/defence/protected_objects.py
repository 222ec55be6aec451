# SPDX-License-Identifier: Apache-2.0
"""Keeps the kernel's table of protected objects up to date: files, directories and cgroups of the
agent, by its configuration and where it runs.

The agent's directories are protected with all their contents: pins, state, configuration,
policies, programs of custom probes, its code. Of the directories above them, only the names are
protected; of its cgroups, the files that control them. The kernel decides what happens to a task
that accesses one (probes/guard.bpf.c).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import ringfence
from ringfence.abi import (
    GUARD_ABOVE,
    GUARD_CGROUP,
    GUARD_CGROUP_ABOVE,
    GUARD_FILE,
    GUARD_TICKET,
    GUARD_TREE,
)
from ringfence.bpf.guard_table import Guards as GuardTable
from ringfence.bpf.guard_table import Wish
from ringfence.bpf.kernel import Kernel
from ringfence.config import Config
from ringfence.containers.hierarchy import own_directories
from ringfence.daemon.startup import handover

__all__ = ["ProtectedObjects"]

#: name of a configuration directory that belongs to the agent alone
_OWN_NAME = "ringfence"
_LEAST = 2  # parts of a path such as /run


class ProtectedObjects:
    """Used by the loop only. All methods do nothing if the self-defence is off."""

    def __init__(self, config: Config, kernel: Kernel) -> None:
        self._config, self._kernel = config, kernel
        self._guards = GuardTable(kernel) if kernel.guarding else None
        self._base: Path | None = None  # of the pins
        self._seen: object = None
        self._links: frozenset[int] = frozenset()

    def begin(self) -> None:
        """Before anything is attached."""
        if self._guards is not None:
            self._guards.process(os.getpgid(0))
            self._guards.objects()
            self.refresh()

    def attached(self, base: Path | None) -> None:
        """Programs are attached, and pinned below `base`."""
        self._base = base
        self.refresh()

    def refresh(self) -> None:
        """Look for objects to protect, and write the changes to the kernel's table."""
        if self._guards is None:
            return
        links = frozenset(link.fd for link in self._kernel.attached)
        if links != self._links:
            self._guards.objects()
            self._links = links
        wishes = list(self._wishes())
        names = list(self._names())
        seen = ([(wish, _identity(wish.path)) for wish in wishes], names)
        if seen != self._seen:
            self._guards.files(wishes, names)
            self._seen = seen

    def _wishes(self) -> Iterator[Wish]:
        # A directory as large as /etc is not the agent's, whatever the configuration puts there.
        trees = [path for path in self._trees() if path.is_dir() and len(path.parts) > _LEAST]
        files = [path for path in self._files() if path.exists()]
        ticket = self._config.state_dir / handover.FILE
        yield from (Wish(path, GUARD_TREE) for path in trees)
        yield from (Wish(path, GUARD_FILE) for path in files)
        above = {parent for path in (*trees, *files) for parent in path.parents[:-1]}
        yield from (Wish(path, GUARD_ABOVE) for path in sorted(above - set(trees)))
        if ticket.exists():
            yield Wish(ticket, GUARD_TICKET)
        for directory in own_directories():
            yield Wish(directory.path, GUARD_CGROUP if directory.own else GUARD_CGROUP_ABOVE)

    def _trees(self) -> Iterator[Path]:
        config = self._config
        yield config.state_dir.resolve()
        if self._base is not None:
            yield self._base.resolve()
        if config.file.parent.name == _OWN_NAME:
            yield config.file.parent.resolve()
        yield from (path.resolve() for path in config.policies)
        for path in (config.probes_directory, config.alerts_queue_dir):
            if path is not None:
                yield path.resolve()
        yield _own_code()

    def _files(self) -> Iterator[Path]:
        config = self._config
        yield config.file.resolve()
        yield from (path.resolve() for path in config.policies if path.is_file())
        yield from (config.socket, config.enroll_socket)
        if config.alerts_headers is not None:
            yield config.alerts_headers.resolve()

    def _names(self) -> Iterator[Path]:
        """Paths whose last component is protected by name, if only system calls are seen."""
        if self._kernel.guarding != "calls":
            return
        code = _own_code()
        yield from (path for path in self._trees() if len(path.parts) > _LEAST and path != code)
        yield from _below(self._config.state_dir)
        yield from (self._config.socket, self._config.enroll_socket)
        if self._base is not None:
            yield from (self._base.parent, self._base)
            for pins in _below(self._base):
                yield pins
                for part in _below(pins):
                    yield part
                    yield from _below(part)


def _own_code() -> Path:
    return Path(ringfence.__file__).resolve().parent


def _below(directory: Path) -> Sequence[Path]:
    with suppress(OSError):
        return sorted(directory.iterdir())
    return ()


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
