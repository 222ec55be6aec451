# SPDX-License-Identifier: Apache-2.0
"""What outlives the agent: links and maps as files of a bpffs, one directory for each start of an agent.

A new agent attaches, adopts, pins, and only when it is complete removes the directories of those before it,
so enforcement has no gap (ringfence.daemon.succession.takeover). `uninstall` removes everything.

A directory is made under another name, maps first, then links, and gets its own name when it is whole: who
ends between leaves one that says so. Its links decide all the same, until it is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ringfence.abi import ABI_VERSION
from ringfence.bpf import _libbpf
from ringfence.bpf.attach import Attached
from ringfence.bpf.capabilities import BPFFS, mounts_of
from ringfence.bpf.maps import Map, open_map
from ringfence.errors import KernelError
from ringfence_linux import syscalls

__all__ = ["PinDirectory", "candidates", "find_base", "uninstall"]

_NAME = "ringfence"  # of our directory in a bpffs, and the source of a bpffs of our own
_UNFINISHED = "new-"
_ABI = "abi"  # a symbolic link that leads to the number
_COMPLETE = "complete"  # a symbolic link: its agent had nothing left to take over


def candidates(word: str) -> Sequence[str]:
    """Where pins may be, by the configuration's word: `auto`, `off` or a path."""
    return {"auto": BPFFS, "off": ()}.get(word, (word,))


def find_base(candidates: Sequence[str] = BPFFS, *, create: bool = True) -> Path | None:
    """The directory that holds all pins, in the first candidate that is a bpffs.

    If there is none, one is mounted at the last candidate; raises KernelError. Without `create`: None.
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
        mount = syscalls.mount_detached("bpf", source=_NAME)
        try:
            syscalls.move_mount_to(mount, path)
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
        number = max((_number(path) for path in base.iterdir()), default=0) + 1
        path = base / f"{_UNFINISHED}{number:08}-{os.getpid()}"
        for part in ("maps", "links"):
            (path / part).mkdir(mode=0o700, parents=True)
        return cls(path)

    @classmethod
    def all(cls, base: Path) -> list[PinDirectory]:
        """Oldest first, also those that are not whole."""
        return [cls(path) for path in sorted(base.iterdir(), key=_order) if path.is_dir()]

    @classmethod
    def strays(cls, base: Path, generation: Map) -> list[PinDirectory]:
        """Directories, here and beside, that hold the pins of the agent that has this map."""
        found = []
        for path in (path for parent in (base, base.parent) for path in parent.iterdir() if path.is_dir()):
            with suppress(OSError):
                pinned = cls(path).open_map("generation")
                if pinned is not None:
                    with pinned:
                        if pinned.id == generation.id:
                            found.append(cls(path))
        return found

    def pin(self, attached: Iterable[Attached], maps: Mapping[str, Map]) -> None:
        """Pin maps and links, and give the directory its name. On a failure nothing of it stays."""
        try:
            for name, found in maps.items():
                _libbpf.pin(found.fd, str(self.path / "maps" / _plain(name)))
            for number, link in enumerate(attached):
                _libbpf.pin(link.fd, str(self.path / _link_name(number, link)))
            (self.path / _ABI).symlink_to(str(ABI_VERSION))
            whole = self.path.with_name(self.path.name.removeprefix(_UNFINISHED))
            self.path = self.path.rename(whole)
        except OSError:
            self.remove()
            raise

    def missing(self, attached: Iterable[Attached], maps: Iterable[Map]) -> list[str]:
        """What of `pin` is not there any more."""
        wanted = {f"maps/{_plain(found.name)}" for found in maps}
        wanted |= {_link_name(number, link) for number, link in enumerate(attached)}
        there = {f"{part}/{name}" for part in ("maps", "links") for name in _names_in(self.path / part)}
        return sorted(wanted - there)

    @property
    def same_abi(self) -> bool:
        """Whether what lies in its maps looks as ours does: it says so, and is whole."""
        try:
            return os.readlink(self.path / _ABI) == str(ABI_VERSION)
        except OSError:
            return False

    @property
    def whole(self) -> bool:
        """Whether all is pinned that its agent had attached."""
        return not self.path.name.startswith(_UNFINISHED)

    @property
    def complete(self) -> bool:
        """Whether its agent came to where it needed those before it no more."""
        return self.whole and (self.path / _COMPLETE).is_symlink()

    def mark_complete(self) -> None:
        """From now on those before it are needed no more. What cannot be marked keeps them a little
        longer."""
        with suppress(OSError):
            (self.path / _COMPLETE).symlink_to("1")

    def open_map(self, name: str) -> Map | None:
        """A map that an earlier agent left, None when it did not. The caller closes it.

        Raises OSError where what lies under its name is no map.
        """
        try:
            return open_map(_libbpf.get_pinned(str(self.path / "maps" / _plain(name))))
        except FileNotFoundError:
            return None

    def links(self) -> list[Path]:
        """The pinned links."""
        return sorted((self.path / "links").iterdir()) if (self.path / "links").is_dir() else []

    def remove(self) -> None:
        """Unpin all: what nobody else holds detaches within milliseconds. Without effect when it is gone.

        Links first: should this be cut short, what goes on deciding is still to be read.
        """
        shutil.rmtree(self.path / "links", ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def name(self) -> str:
        """Unique on this node."""
        return self.path.name


def uninstall(candidates: Sequence[str] = BPFFS) -> int:
    """Remove every pin of every agent, and the mount if an agent made it. Says how many agents left some."""
    removed = 0
    for path in candidates:
        base = find_base((path,), create=False)
        if base is not None:
            for directory in PinDirectory.all(base):
                directory.remove()
                removed += 1
            with suppress(OSError):
                base.rmdir()
        if path in mounts_of("bpf", source=_NAME):
            syscalls.umount2(path, syscalls.MNT_DETACH)
            with suppress(OSError):
                os.rmdir(path)
    return removed


def _number(path: Path) -> int:
    """Of a directory of ours, 0 of a stranger's."""
    number = path.name.removeprefix(_UNFINISHED).partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _order(path: Path) -> tuple[int, str]:
    return _number(path), path.name


def _link_name(number: int, link: Attached) -> str:
    return f"links/{number:03}-{_plain(link.program)}"


def _names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _plain(name: str) -> str:
    return name.replace(".", "_").replace("/", "_")
