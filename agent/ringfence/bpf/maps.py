# SPDX-License-Identifier: Apache-2.0
"""BPF maps by descriptor: keys and values are bytes; an int is converted in the machine's byte order."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from functools import cache

from ringfence.bpf import _libbpf, _maps, _syscalls
from ringfence.bpf.writer import Writer

__all__ = ["Map", "MapType", "create_map", "open_map", "wait_for_programs"]

_BATCH = 512  # entries of one batch call
_GAP = 16  # up to this many unwanted keys between two wanted ones are read with them
_NO_BATCH = (errno.EINVAL, errno.EOPNOTSUPP, 524)  # 524: ENOTSUPP, kernel-internal but returned


class MapType(IntEnum):
    """The used values of enum bpf_map_type."""

    HASH = 1
    ARRAY = 2
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    STACK = 23
    RINGBUF = 27
    TASK_STORAGE = 29


@cache
def _cpus() -> int:
    return _libbpf.possible_cpus()


class Map:
    """One map. It owns its descriptor until `close`.

    After `write_by`, a program does all writes, as the map may be frozen. Sizes are in bytes; `value_size`
    is for one CPU. Failures are OSError with the name of the call.
    """

    __slots__ = (
        "_cpu_size",
        "_lanes",
        "_number",
        "_read_size",
        "_writer",
        "fd",
        "key_size",
        "max_entries",
        "name",
        "type",
        "value_size",
    )

    def __init__(
        self, fd: int, key_size: int, value_size: int, max_entries: int, type: int, name: str
    ) -> None:
        self.fd = fd
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.type = type
        self.name = name
        per_cpu = type in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH)
        self._cpu_size = (value_size + 7) // 8 * 8 if per_cpu else value_size
        self._read_size = self._cpu_size * _cpus() if per_cpu else value_size
        self._writer: Writer | None = None
        self._number = 0
        self._lanes = struct.Struct(f"={value_size // 8}Q")  # of a value of counters

    def __repr__(self) -> str:
        return f"Map({self.name}, fd {self.fd}, {self.key_size}->{self.value_size} x {self.max_entries})"

    def write_by(self, writer: Writer, number: int) -> None:
        """Writes by that program from now on, under this number (enum rf_write_map)."""
        self._writer, self._number = writer, number

    @property
    def writer(self) -> Writer:
        """The program of `write_by`."""
        assert self._writer is not None
        return self._writer

    def _key(self, key: bytes | int) -> bytes:
        found = key.to_bytes(self.key_size, sys.byteorder) if isinstance(key, int) else key
        if len(found) != self.key_size:  # the kernel would read past the end
            raise ValueError(f"{self.name}: a key must have {self.key_size} bytes, not {len(found)}")
        return found

    def _value(self, value: bytes | int) -> bytes:
        found = value.to_bytes(self._read_size, sys.byteorder) if isinstance(value, int) else value
        if len(found) != self._read_size:
            raise ValueError(f"{self.name}: a value must have {self._read_size} bytes, not {len(found)}")
        return found

    def get(self, key: bytes | int) -> bytes | None:
        """Returns the value, None if absent. For a per-CPU map: the concatenated values of all CPUs."""
        return _maps.lookup(self.fd, self._key(key), self._read_size)

    def get_int(self, key: bytes | int) -> int:
        """Returns the value as an unsigned number, 0 if absent."""
        return int.from_bytes(self.get(key) or b"", sys.byteorder)

    def set(self, key: bytes | int, value: bytes | int, flags: int = 0) -> None:
        """Stores one value. In a map of maps, the value is the descriptor of the inner map."""
        if self._writer is not None:
            self._writer.set(self._number, self._key(key), self._value(value), 1, flags)
        else:
            _maps.update(self.fd, self._key(key), self._value(value), flags)

    def delete(self, key: bytes | int) -> bool:
        """Deletes an entry. Returns False if the key was absent."""
        if self._writer is not None:
            return self._writer.delete(self._number, self._key(key), 1) == 1
        return _maps.delete(self.fd, self._key(key))

    def take(self, key: bytes | int) -> bytes | None:
        """Removes an entry of a hash map and returns its value; None if absent (5.14)."""
        return _maps.lookup(self.fd, self._key(key), self._read_size, take=True)

    def pop(self) -> int | None:
        """Takes the top of a stack; None if it is empty."""
        if self._writer is not None:
            return self._writer.pop(self._number)
        value = _maps.lookup(self.fd, None, self.value_size, take=True)
        return None if value is None else int.from_bytes(value, sys.byteorder)

    def push(self, value: int) -> None:
        """Pushes a number on a stack. OSError E2BIG if it is full."""
        self.push_all((value,))

    def push_all(self, values: Iterable[int]) -> None:
        """Pushes many numbers, the first one first."""
        encoded = [value.to_bytes(self.value_size, sys.byteorder) for value in values]
        if self._writer is not None:
            self._writer.set(self._number, b"", b"".join(encoded), len(encoded))
            return
        for value in encoded:
            _maps.update(self.fd, None, value)

    def keys(self) -> Iterator[bytes]:
        """Yields every key. Keys added or deleted meanwhile can be missed or repeated; it always ends."""
        seen = 0
        key = _maps.next_key(self.fd, None, self.key_size)
        while key is not None and seen <= 2 * self.max_entries:
            following = _maps.next_key(self.fd, key, self.key_size)  # first: the caller may delete `key`
            yield key
            key, seen = following, seen + 1

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yields every key and value, read in batches if the kernel supports it."""
        try:
            yield from self._batches()
        except OSError as error:
            if error.errno not in _NO_BATCH:
                raise
            for key in self.keys():
                value = self.get(key)
                if value is not None:
                    yield key, value

    def _batches(self) -> Iterator[tuple[bytes, bytes]]:
        for batch in self._steps():
            for index in range(len(batch.keys) // self.key_size):
                key = batch.keys[index * self.key_size : (index + 1) * self.key_size]
                yield key, batch.values[index * self._read_size : (index + 1) * self._read_size]

    def _steps(self) -> Iterator[_maps.Batch]:
        token, count = None, min(_BATCH, self.max_entries)
        while True:
            try:
                batch = _maps.lookup_batch(self.fd, token, count, self.key_size, self._read_size)
            except OSError as error:
                if error.errno != errno.ENOSPC:  # a bucket of a hash map has more than `count`
                    raise
                count *= 2
                continue
            yield batch
            token = batch.token
            if token is None:
                return

    def update_batch(self, entries: dict[bytes, bytes]) -> None:
        """Stores many values, in one call if supported. Not atomic: readers can see a part of them."""
        if not entries:
            return
        keys = b"".join(self._key(key) for key in entries)
        values = b"".join(self._value(value) for value in entries.values())
        if self._writer is not None:
            self._writer.set(self._number, keys, values, len(entries))
            return
        try:
            _maps.update_batch(self.fd, keys, values, len(entries))
        except OSError as error:
            if error.errno not in _NO_BATCH:
                raise
            for key, value in entries.items():
                self.set(key, value)

    def delete_all(self) -> int:
        """Empties a hash map or a trie. Returns the number of deleted entries."""
        return self.delete_batch(list(self.keys()))

    def delete_batch(self, keys: Sequence[bytes]) -> int:
        """Deletes many entries. Returns how many of them were there."""
        if self._writer is not None and keys:
            return self._writer.delete(self._number, b"".join(map(self._key, keys)), len(keys))
        return sum(self.delete(key) for key in keys)

    def fill(self) -> int:
        """Returns the number of entries of a hash map or a trie."""
        try:
            return sum(len(batch.keys) for batch in self._steps()) // self.key_size
        except OSError as error:
            if error.errno not in _NO_BATCH:
                raise
            return sum(1 for _ in self.keys())

    def sum(self, key: bytes | int) -> int:
        """Returns the sum over the CPUs of a per-CPU u64."""
        return self.sums(key)[0]

    def sums(self, key: bytes | int) -> tuple[int, ...]:
        """Returns the sums over the CPUs of a per-CPU value of u64s, element by element."""
        return self._add_up(self.get(key) or bytes(self._read_size))

    def all_sums(self) -> Iterator[tuple[bytes, tuple[int, ...]]]:
        """Yields every key and its `sums`."""
        for key, value in self.items():
            yield key, self._add_up(value)

    def sums_of(self, keys: Iterable[int]) -> dict[int, tuple[int, ...]]:
        """Returns the `sums` of many keys of a per-CPU array, in few calls if supported (5.13)."""
        found = {}
        for first, count, wanted in _runs(keys):
            try:
                values = self._range(first, count)
            except OSError as error:
                if error.errno not in _NO_BATCH:
                    raise
                found.update({key: self.sums(key) for key in wanted})
                continue
            for key in wanted:
                at = (key - first) * self._read_size
                found[key] = self._add_up(values[at : at + self._read_size])
        return found

    def _range(self, first: int, count: int) -> bytes:
        """Returns values of an array from one index on: a batch continues after the given index."""
        token = (first - 1).to_bytes(self.key_size, sys.byteorder) if first else None
        return _maps.lookup_batch(self.fd, token, count, self.key_size, self._read_size).values

    def _add_up(self, value: bytes) -> tuple[int, ...]:
        # One addition for all lanes of a CPU: no count approaches 2^64, so none overflows.
        size, order = self._cpu_size, sys.byteorder
        total = 0
        for at in range(0, len(value), size):
            total += int.from_bytes(value[at : at + size], order)
        return self._lanes.unpack_from((total & ((1 << 8 * size) - 1)).to_bytes(size, order))

    def mapped(self) -> mmap.mmap:
        """Maps the values of an array with BPF_F_MMAPABLE for reading; each is padded to 8 bytes."""
        size = self.max_entries * ((self.value_size + 7) // 8 * 8)
        return mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ)

    def freeze(self) -> None:
        """Makes the map immutable for system calls of any process; programs can still change it."""
        _syscalls.map_freeze(self.fd)

    @property
    def id(self) -> int:
        """The map's id on this node: the second word of struct bpf_map_info."""
        return int(struct.unpack("=2I", _libbpf.info(self.fd, 8))[1])

    def close(self) -> None:
        """Closes the descriptor. The map lives while a program, a pin or an outer map refers to it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Map:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _runs(keys: Iterable[int]) -> Iterator[tuple[int, int, list[int]]]:
    """Yields (first, count, requested keys) of groups of indexes that are close together."""
    wanted: list[int] = []
    for key in sorted(set(keys)):
        if wanted and (key - wanted[-1] > _GAP or key - wanted[0] >= _BATCH):
            yield wanted[0], wanted[-1] - wanted[0] + 1, wanted
            wanted = []
        wanted.append(key)
    if wanted:
        yield wanted[0], wanted[-1] - wanted[0] + 1, wanted


def create_map(
    type: int,
    name: str,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    flags: int = 0,
    inner: Map | None = None,
) -> Map:
    """Creates a map. `inner` is the template of inner maps; names are truncated to 15 bytes."""
    fd = _maps.create(type, name, key_size, value_size, max_entries, flags, inner.fd if inner else 0)
    return Map(fd, key_size, value_size, max_entries, type, name)


@cache
def _waited_on() -> tuple[Map, Map]:
    inner = create_map(MapType.ARRAY, "rf_wait_inner", 4, 4, 1)
    return create_map(MapType.ARRAY_OF_MAPS, "rf_wait", 4, 4, 1, inner=inner), inner


def wait_for_programs() -> None:
    """Waits until no program is running that was running before.

    The kernel waits for an RCU grace period after every change of a map of maps (1ae80cf31938, 4.19), even
    one that writes the same value. No program uses this one.
    """
    outer, inner = _waited_on()
    outer.set(0, inner.fd)


def open_map(fd: int) -> Map:
    """Returns the map of an existing descriptor (of a pin), which the Map then owns."""
    kind, _, key_size, value_size, entries, _, name = struct.unpack("=6I16s", _libbpf.info(fd, 40))
    return Map(fd, key_size, value_size, entries, kind, name.partition(b"\0")[0].decode())
