# SPDX-License-Identifier: Apache-2.0
"""The bpf(2) commands for a cgroup's device program: load, attach, detach, query."""

from __future__ import annotations

import os
from _struct import pack, unpack_from
from array import array

from ringfence_linux import syscalls

__all__ = ["NAME", "attach", "attached", "detach", "load"]

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _OBJ_GET_INFO_BY_FD, _PROG_QUERY = (
    5,
    8,
    9,
    13,
    15,
    16,
)
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
NAME = b"rf_devices"


def _buffer(content: bytes) -> tuple[array[int], int]:
    """Returns a copy of the bytes at a fixed address, and the address."""
    made = array("B", content)
    return made, made.buffer_info()[0]


def load(instructions: bytes) -> int:
    """Loads a device program given as packed bpf_insn; returns its descriptor."""
    code, code_at = _buffer(instructions)
    licence, licence_at = _buffer(b"Apache-2.0\0")
    count = len(instructions) // 8
    attributes = pack(
        "IIQQIIQII16sII",
        _CGROUP_DEVICE_PROGRAM,
        count,
        code_at,
        licence_at,
        0,
        0,
        0,
        0,
        0,
        NAME,
        0,
        _CGROUP_DEVICE,
    )
    try:
        return syscalls.bpf(_PROG_LOAD, attributes)
    finally:
        del code, licence


def attach(group: int, program: int) -> None:
    """Attaches in addition to programs already attached."""
    syscalls.bpf(_PROG_ATTACH, pack("IIIII", group, program, _CGROUP_DEVICE, _ALLOW_MULTI, 0))


def detach(group: int, program: int) -> None:
    """Detaches this program."""
    syscalls.bpf(_PROG_DETACH, pack("III", group, program, _CGROUP_DEVICE))


def attached(group: int) -> list[int]:
    """Returns descriptors of the programs named NAME attached to `group` itself; the caller closes them."""
    numbers, numbers_at = _buffer(bytes(4 * 64))
    query, query_at = _buffer(
        pack("IIIIQII", group, _CGROUP_DEVICE, 0, 0, numbers_at, 64, 0).ljust(64, b"\0")
    )
    syscalls.bpf(_PROG_QUERY, query_at, len(query))
    count = unpack_from("I", query.tobytes(), 24)[0]
    found: list[int] = []
    for position in range(count):
        number = unpack_from("I", numbers.tobytes(), 4 * position)[0]
        fd = syscalls.bpf(_PROG_GET_FD_BY_ID, pack("III", number, 0, 0))
        info, info_at = _buffer(bytes(128))
        syscalls.bpf(_OBJ_GET_INFO_BY_FD, pack("IIQ", fd, 128, info_at))
        if info.tobytes()[64:80].rstrip(b"\0") == NAME:
            found.append(fd)
        else:
            os.close(fd)
    return found
