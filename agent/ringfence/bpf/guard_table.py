# SPDX-License-Identifier: Apache-2.0
"""Fills, renews and cleans the kernel's table of guarded objects (`guards` of probes/include/guard.h).

Files are registered by descriptor, and a BPF program reads the kernel's object: st_dev is not the
filesystem's number on btrfs, and st_ino is not the inode's number on some overlays.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ringfence.abi import (
    GUARD_FILE,
    GUARD_GROUP,
    GUARD_KEY,
    GUARD_LINK,
    GUARD_LOOK,
    GUARD_MAP,
    GUARD_NAME,
    GUARD_OBJECT,
    GUARD_PART,
    GUARD_PROGRAM,
    GUARD_STATE,
    GUARD_WANTED,
    GUARD_WHOLE,
    GUARD_WISH,
)
from ringfence.bpf import _libbpf, guard_calls
from ringfence.bpf.attach import run_iterator
from ringfence.bpf.kernel import Kernel

__all__ = ["Guards", "Wish"]

_COMPONENTS = 3  # last components of a path: this many rarely match another file
_ROUNDS = 1 << 20


class Wish(NamedTuple):
    """A file or directory to guard, and how: GUARD_TREE, GUARD_FILE ..."""

    path: Path
    kind: int


class Guards:
    """Used by one thread. Each refresh is a round: objects not named in it are no longer guarded."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._table = kernel.map("guards")
        self._round = 0
        self._register = next(p for p in kernel.programs if p.name == "guard_register")
        table = dict(guard_calls.call_entries(guard_calls.CALLS))
        calls = kernel.map("guarded_calls")
        calls.update_batch({number.to_bytes(4, "little"): value for number, value in table.items()})

    def files(self, wishes: Sequence[Wish], names: Iterable[Path]) -> None:
        """Guards these files, if they exist, and other files with these names; replaces earlier ones."""
        self._round = (self._round + 1) % _ROUNDS
        batch: list[tuple[int, int]] = []
        for wish in wishes:
            with suppress(OSError):
                batch.append((os.open(wish.path, os.O_PATH | os.O_CLOEXEC), self._value(wish.kind)))
            if len(batch) == GUARD_WANTED:
                self._hand_over(batch)
        self._hand_over(batch)
        self._names(names)
        self._clean()

    def add(self, path: Path, kind: int = GUARD_FILE) -> None:
        """Guards one more file until the next round; a missing file is not an error."""
        with suppress(OSError):
            self._hand_over([(os.open(path, os.O_PATH | os.O_CLOEXEC), self._value(kind))])

    def objects(self) -> None:
        """Guards all maps and programs of the kernel side, and the current links."""
        ids = [(GUARD_MAP, one.id) for one in self._kernel.maps]
        ids += [(GUARD_PROGRAM, _second_word(program.fd)) for program in self._kernel.programs]
        ids += [(GUARD_LINK, _second_word(link.fd)) for link in self._kernel.attached]
        self._table.update_batch({GUARD_KEY.pack(*key): _u32(GUARD_OBJECT) for key in ids})

    def process(self, group: int) -> None:
        """Guards the process group and the files of /proc/PID that only a permitted tracer can open."""
        entries = {GUARD_KEY.pack(GUARD_GROUP, group): _u32(GUARD_OBJECT)}
        for name, what in guard_calls.LOOKS.items():
            entries[GUARD_KEY.pack(GUARD_LOOK, guard_calls.file_name_hash(name.encode()))] = _u32(what)
        self._table.update_batch(entries)

    @property
    def ticket(self) -> tuple[int, int]:
        """Returns the kernel's device and inode numbers of the ticket."""
        raw = self._kernel.map("guard_state").get(0)
        return GUARD_STATE.unpack(raw)[1:3] if raw else (0, 0)

    def _value(self, kind: int) -> int:
        return kind | self._round << 8

    def _hand_over(self, batch: list[tuple[int, int]]) -> None:
        wanted = self._kernel.map("guard_wanted")
        rest = [(-1, 0)] if len(batch) < GUARD_WANTED else []
        rows = enumerate([*batch, *rest])
        wanted.update_batch({_u32(index): GUARD_WISH.pack(*row) for index, row in rows})
        try:
            if batch:
                run_iterator(self._register)
        finally:
            for fd, _ in batch:
                os.close(fd)
            batch.clear()

    def _names(self, paths: Iterable[Path]) -> None:
        entries: dict[bytes, bytes] = {}
        for path in paths:
            parts = path.parts[1:][-_COMPONENTS:]
            for count in range(1, len(parts) + 1):
                text = "/".join(parts[-count:]).encode(errors="surrogateescape")
                key = GUARD_KEY.pack(GUARD_NAME, guard_calls.name_hash(text))
                whole = count == len(parts) or entries.get(key) == _u32(self._value(GUARD_WHOLE))
                entries[key] = _u32(self._value(GUARD_WHOLE if whole else GUARD_PART))
        self._table.update_batch(entries)

    def _clean(self) -> None:
        """Removes entries of removed files: inode numbers are reused, and must not match new files."""
        old = []
        for key, raw in self._table.items():
            device, _ = GUARD_KEY.unpack(key)
            of_files = device == GUARD_NAME or device < GUARD_MAP
            if of_files and int.from_bytes(raw, "little") >> 8 != self._round:
                old.append(key)
        self._table.delete_batch(old)


def _u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def _second_word(fd: int) -> int:
    """Returns the id in struct bpf_prog_info and bpf_link_info."""
    return int(struct.unpack("=2I", _libbpf.info(fd, 8))[1])
