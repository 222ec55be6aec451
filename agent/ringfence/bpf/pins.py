# SPDX-License-Identifier: Apache-2.0
"""Links and maps that outlive the agent, pinned in a bpffs, one directory for each start of an agent.

A new agent attaches, adopts and pins. Only when it is complete, it removes the directories of earlier
agents, so enforcement has no gap (ringfence.daemon.succession.takeover). `uninstall` removes everything.

A directory is created under a temporary name, maps first, then links, and renamed when it is complete:
an agent that ends in between leaves the temporary name. Its links decide until it is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ringfence.abi import ABI_VERSION
from ringfence.bpf import _libbpf
from ringfence.bpf.attach import Attached
from ringfence.bpf.capabilities import BPFFS, mounts_of
from ringfence.bpf.maps import Map, open_map
from ringfence.bpf.objects import Program
from ringfence.bpf.writer import WRITTEN, Writer
from ringfence.errors import KernelError
from ringfence_linux import syscalls

__all__ = ["PinDirectory", "candidates", "find_base", "uninstall"]

_NAME = "ringfence"  # the directory in a bpffs, and the source of a bpffs mounted by the agent
_UNFINISHED = "new-"
_DEFENDED = "defended"  # a symbolic link: see PinDirectory.defended
_ABI = "abi"  # a symbolic link with the ABI number as its target
_WRITER = "writer"  # the program that writes the maps
_COMPLETE = "complete"  # a symbolic link: the agent had finished the takeover


def candidates(word: str) -> Sequence[str]:
    """Returns possible directories of pins for the configured value: `auto`, `off` or a path."""
    return {"auto": BPFFS, "off": ()}.get(word, (word,))


def find_base(candidates: Sequence[str] = BPFFS, *, create: bool = True) -> Path | None:
    """Returns the directory of all pins, in the first candidate that is a bpffs.

    If there is none, mounts one at the last candidate, or raises KernelError. Without `create`: None.
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
            f"no bpffs is mounted, and mounting one failed: {error}", hint="mount -t bpf bpf /sys/fs/bpf"
        ) from None
    return path


class PinDirectory:
    """The pins of one agent: `links/` and `maps/`. bpffs allows no dots in names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, base: Path) -> PinDirectory:
        """Creates a directory with a name that sorts after earlier ones."""
        number = max((_number(path) for path in base.iterdir()), default=0) + 1
        path = base / f"{_UNFINISHED}{number:08}-{os.getpid()}"
        for part in ("maps", "links"):
            (path / part).mkdir(mode=0o700, parents=True)
        return cls(path)

    @classmethod
    def all(cls, base: Path) -> list[PinDirectory]:
        """Returns all directories, the oldest first, including incomplete ones."""
        return [cls(path) for path in sorted(base.iterdir(), key=_order) if path.is_dir()]

    @classmethod
    def strays(cls, base: Path, generation: Map) -> list[PinDirectory]:
        """Returns directories, below and next to `base`, with pins of the agent that has this map."""
        found = []
        for path in (path for parent in (base, base.parent) for path in parent.iterdir() if path.is_dir()):
            with suppress(OSError):
                pinned = cls(path).open_map("generation")
                if pinned is not None:
                    with pinned:
                        if pinned.id == generation.id:
                            found.append(cls(path))
        return found

    def pin(
        self,
        attached: Iterable[Attached],
        maps: Mapping[str, Map],
        writer: Program,
        *,
        defended: bool = False,
    ) -> None:
        """Pins maps, links and the program that writes maps, and renames the directory to its final
        name. On failure removes all.
        """
        try:
            _libbpf.pin(writer.fd, str(self.path / _WRITER))
            for name, found in maps.items():
                _libbpf.pin(found.fd, str(self.path / "maps" / _plain(name)))
            for number, link in enumerate(attached):
                _libbpf.pin(link.fd, str(self.path / _link_name(number, link)))
            (self.path / _ABI).symlink_to(str(ABI_VERSION))
            if defended:
                (self.path / _DEFENDED).symlink_to("1")
            whole = self.path.with_name(self.path.name.removeprefix(_UNFINISHED))
            self.path = self.path.rename(whole)
        except OSError:
            self.remove()
            raise

    def missing(self, attached: Iterable[Attached], maps: Iterable[Map]) -> list[str]:
        """Returns the names of missing pins."""
        wanted = {f"maps/{_plain(found.name)}" for found in maps}
        wanted |= {_link_name(number, link) for number, link in enumerate(attached)}
        wanted.add(_WRITER)
        there = {f"{part}/{name}" for part in ("maps", "links") for name in _names_in(self.path / part)}
        there.update(_names_in(self.path))
        return sorted(wanted - there)

    @property
    def same_abi(self) -> bool:
        """Returns True if its maps have this agent's layout: the same ABI number, and complete."""
        try:
            return os.readlink(self.path / _ABI) == str(ABI_VERSION)
        except OSError:
            return False

    @property
    def defended(self) -> bool:
        """Returns True if no container can remove it: its programs end the one that tries."""
        return (self.path / _DEFENDED).is_symlink()

    @property
    def whole(self) -> bool:
        """Returns True if everything that its agent attached is pinned."""
        return not self.path.name.startswith(_UNFINISHED)

    @property
    def complete(self) -> bool:
        """Returns True if its agent finished the takeover from earlier agents."""
        return self.whole and (self.path / _COMPLETE).is_symlink()

    def mark_complete(self) -> None:
        """Records that earlier agents' pins are no longer needed. On failure they are kept longer."""
        with suppress(OSError):
            (self.path / _COMPLETE).symlink_to("1")

    def open_map(self, name: str) -> Map | None:
        """Returns a map of an earlier agent, None if it is not pinned. The caller closes it.

        Raises OSError if the pin is not a map.
        """
        try:
            return open_map(_libbpf.get_pinned(str(self.path / "maps" / _plain(name))))
        except FileNotFoundError:
            return None

    @contextmanager
    def open_to_write(self, name: str) -> Iterator[Map | None]:
        """Gives a map of an earlier agent that its program writes; None if it is not pinned, or of
        another ABI. OSError if the program is not pinned.
        """
        found = self.open_map(name) if self.same_abi else None
        if found is None:
            yield None
            return
        with closing(found):
            fd = _libbpf.get_pinned(str(self.path / _WRITER))
            try:
                found.write_by(Writer(fd), WRITTEN[name])
                yield found
            finally:
                os.close(fd)

    def links(self) -> list[Path]:
        """The pinned links."""
        return sorted((self.path / "links").iterdir()) if (self.path / "links").is_dir() else []

    def remove(self) -> None:
        """Unpins all: links without another holder detach within milliseconds. Idempotent.

        Links first: if this is interrupted, the records of still attached programs remain readable.
        """
        shutil.rmtree(self.path / "links", ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def name(self) -> str:
        """Unique on this node."""
        return self.path.name


def uninstall(candidates: Sequence[str] = BPFFS) -> int:
    """Removes all agents' pins, and the mount if an agent made it. Returns the number of agents."""
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
    """Returns the number of an agent's directory, 0 for any other."""
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
