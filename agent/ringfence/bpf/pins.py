# SPDX-License-Identifier: Apache-2.0
"""What outlives the agent: links and maps as files of a bpffs, one directory for each start of an agent.

A new agent attaches, adopts, pins, and only when it is complete removes the directories of those before it,
so enforcement has no gap (ringfence.daemon.takeover). `uninstall` removes everything.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ringfence.bpf import _libbpf, _syscalls
from ringfence.bpf.attach import Attached
from ringfence.bpf.capabilities import BPFFS, mounts_of
from ringfence.bpf.maps import Map, open_map
from ringfence.errors import KernelError

__all__ = ["PinDirectory", "candidates", "find_base", "uninstall"]

_NAME = "ringfence"


def candidates(word: str) -> Sequence[str]:
    """Where pins may be, by the configuration's word: `auto`, `off` or a path."""
    return {"auto": BPFFS, "off": ()}.get(word, (word,))


def find_base(candidates: Sequence[str] = BPFFS, *, create: bool = True) -> Path | None:
    """The directory that holds all pins, in the first candidate that is a bpffs.

    When none is, one is mounted at the last, or KernelError raised. None when `create` is off and none is.
    """
    mounts = mounts_of("bpf")
    mounted = next((path for path in candidates if path in mounts), "")
    if create:
        base = Path(mounted or _mount_own(candidates[-1]), _NAME)
        base.mkdir(mode=0o700, exist_ok=True)
        return base
    base = Path(mounted, _NAME)
    return base if mounted and base.is_dir() else None


def _mount_own(path: str) -> str:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        mount = _syscalls.mount_detached("bpf")
        try:
            _syscalls.move_mount(mount, path)
        finally:
            os.close(mount)
    except OSError as error:
        raise KernelError(
            f"no bpffs is mounted, and none can be: {error}", hint="mount -t bpf bpf /sys/fs/bpf"
        ) from None
    return path


class PinDirectory:
    """The pins of one agent: `links/` and `maps/`. Names say what they are; bpffs allows no dot in them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, base: Path) -> PinDirectory:
        """A new one, named so that later ones sort behind it."""
        numbers = [
            int(p.name.partition("-")[0]) for p in base.iterdir() if p.name.partition("-")[0].isdigit()
        ]
        path = base / f"{max(numbers, default=0) + 1:08}-{os.getpid()}"
        for part in ("links", "maps"):
            (path / part).mkdir(mode=0o700, parents=True)
        return cls(path)

    @classmethod
    def all(cls, base: Path) -> list[PinDirectory]:
        """Oldest first."""
        return [cls(path) for path in sorted(base.iterdir()) if path.is_dir()]

    def pin(self, attached: Iterable[Attached], maps: Mapping[str, Map]) -> None:
        """Pin links and maps. On a failure nothing of it stays."""
        try:
            for number, link in enumerate(attached):
                _libbpf.pin(link.fd, str(self.path / "links" / f"{number:03}-{_plain(link.program)}"))
            for name, found in maps.items():
                _libbpf.pin(found.fd, str(self.path / "maps" / _plain(name)))
        except OSError:
            self.remove()
            raise

    def open_map(self, name: str) -> Map | None:
        """A map that an earlier agent left, None when it did not. The caller closes it."""
        try:
            return open_map(_libbpf.get_pinned(str(self.path / "maps" / _plain(name))))
        except FileNotFoundError:
            return None

    def links(self) -> list[Path]:
        """The pinned links."""
        return sorted((self.path / "links").iterdir()) if (self.path / "links").is_dir() else []

    def remove(self) -> None:
        """Unpin all: what nobody else holds detaches within milliseconds. Without effect when it is gone."""
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def name(self) -> str:
        """Unique on this node."""
        return self.path.name


def uninstall(candidates: Sequence[str] = BPFFS) -> int:
    """Remove every pin of every agent, and the mount if it is ours. Says how many agents left some."""
    removed = 0
    for path in candidates:
        base = find_base((path,), create=False)
        if base is None:
            continue
        for directory in PinDirectory.all(base):
            directory.remove()
            removed += 1
        with suppress(OSError):
            base.rmdir()
        if path == candidates[-1]:
            _syscalls.unmount(path)
            with suppress(OSError):
                os.rmdir(path)
    return removed


def _plain(name: str) -> str:
    return name.replace(".", "_").replace("/", "_")
