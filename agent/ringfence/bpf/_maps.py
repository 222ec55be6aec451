# SPDX-License-Identifier: Apache-2.0
"""Maps by descriptor, through libbpf: one call per function. Raises OSError like `_libbpf`.

Keys and values are bytes of the map's sizes.
"""

from __future__ import annotations

import ctypes
import errno
from typing import NamedTuple

from ringfence.bpf._libbpf import checked, lib


class _MapCreateOpts(ctypes.Structure):
    """struct bpf_map_create_opts of libbpf 1.0; `sz` is its size."""

    _fields_ = [
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    ]


def create(
    kind: int, name: str, key: int, value: int, entries: int, flags: int = 0, inner_fd: int = 0
) -> int:
    opts = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags, inner_map_fd=inner_fd)
    fd = lib.bpf_map_create(kind, name.encode()[:15], key, value, entries, ctypes.byref(opts))
    return checked(fd, "bpf_map_create", name)


def lookup(fd: int, key: bytes | None, size: int, *, take: bool = False) -> bytes | None:
    """Returns the value (`size` bytes), None if the key is absent. `take` also removes the entry."""
    buffer = ctypes.create_string_buffer(size)
    call = lib.bpf_map_lookup_and_delete_elem if take else lib.bpf_map_lookup_elem
    result = call(fd, key, buffer)
    if result == -errno.ENOENT:
        return None
    checked(result, "bpf_map_lookup_elem", fd)
    return buffer.raw


def update(fd: int, key: bytes | None, value: bytes, flags: int = 0) -> None:
    checked(lib.bpf_map_update_elem(fd, key, value, flags), "bpf_map_update_elem", fd)


def delete(fd: int, key: bytes) -> bool:
    """Deletes an entry. Returns False if the key was absent."""
    result = lib.bpf_map_delete_elem(fd, key)
    return result != -errno.ENOENT and checked(result, "bpf_map_delete_elem", fd) == 0


def next_key(fd: int, key: bytes | None, size: int) -> bytes | None:
    buffer = ctypes.create_string_buffer(size)
    result = lib.bpf_map_get_next_key(fd, key, buffer)
    if result == -errno.ENOENT:
        return None
    checked(result, "bpf_map_get_next_key", fd)
    return buffer.raw


class Batch(NamedTuple):
    """One step through a map: `token` is for the next step, None after the last."""

    keys: bytes
    values: bytes
    token: bytes | None


def lookup_batch(fd: int, token: bytes | None, count: int, key: int, value: int) -> Batch:
    """Returns up to `count` entries. Hash maps fail with ENOSPC if a bucket has more than that."""
    keys, values = ctypes.create_string_buffer(count * key), ctypes.create_string_buffer(count * value)
    after, got = ctypes.create_string_buffer(max(key, 8)), ctypes.c_uint32(count)
    result = lib.bpf_map_lookup_batch(fd, token, after, keys, values, ctypes.byref(got), None)
    if result != -errno.ENOENT:
        checked(result, "bpf_map_lookup_batch", fd)
    more = None if result else after.raw
    return Batch(keys.raw[: got.value * key], values.raw[: got.value * value], more)


def update_batch(fd: int, keys: bytes, values: bytes, count: int) -> None:
    result = lib.bpf_map_update_batch(fd, keys, values, ctypes.byref(ctypes.c_uint32(count)), None)
    checked(result, "bpf_map_update_batch", fd)
