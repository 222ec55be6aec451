# SPDX-License-Identifier: Apache-2.0
"""Root of the host writes a map that is frozen: by a program of its own, as the kernel allows."""

from __future__ import annotations

import os
from struct import pack

from ringfence.bpf import _syscalls
from ringfence.bpf.maps import Map

__all__ = ["write_word"]

_RAW_TRACEPOINT = 17


def write_word(into: Map, key: int, offset: int, word: int) -> None:
    """Stores 64 bits in an entry of an array, `offset` bytes from its beginning."""
    code = b"".join(
        (
            pack("<BBhi", 0x62, 10, -4, key),  # *(u32 *)(r10 - 4) = key
            pack("<BBhi", 0x18, 1 | 1 << 4, 0, into.fd) + bytes(8),  # r1 = map
            pack("<BBhi", 0xBF, 2 | 10 << 4, 0, 0),  # r2 = r10
            pack("<BBhi", 0x07, 2, 0, -4),  # r2 -= 4
            pack("<BBhi", 0x85, 0, 0, 1),  # map_lookup_elem
            pack("<BBhi", 0x15, 0, 3, 0),  # if r0 == 0 goto the end
            pack("<BBhi", 0x18, 1, 0, word & 0xFFFFFFFF) + pack("<BBhI", 0, 0, 0, word >> 32),
            pack("<BBhi", 0x7B, 0 | 1 << 4, offset, 0),  # *(u64 *)(r0 + offset) = r1
            pack("<BBhi", 0xB7, 0, 0, 0),
            pack("<BBhi", 0x95, 0, 0, 0),
        )
    )
    fd = _syscalls.load_program(_RAW_TRACEPOINT, 0, code)
    try:
        _syscalls.run_program(fd, bytes(8))
    finally:
        os.close(fd)
