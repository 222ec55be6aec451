# SPDX-License-Identifier: Apache-2.0
"""System calls that neither Python nor libbpf offers, by ctypes: perf_event_open, fsopen, openat2, bpf(2).

Numbers are those of the architecture's table; struct layouts are include/uapi/linux/{perf_event,bpf}.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Any

_u32 = ctypes.c_uint32
_u64 = ctypes.c_uint64

# One number for every architecture since 5.2.
_NR_MOVE_MOUNT, _NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 429, 430, 431, 432
_NR_OPENAT2 = 437
# These two are older than that agreement.
_NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_NR_BPF = {"x86_64": 321, "aarch64": 280}

_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING = 0, 1
_FSOPEN_CLOEXEC, _FSCONFIG_CMD_CREATE, _FSMOUNT_CLOEXEC, _MOVE_MOUNT_F_EMPTY_PATH = 1, 6, 1, 4
_AT_FDCWD = -100
_BPF_PROG_LOAD, _BPF_MAP_FREEZE = 5, 22
_RESOLVE_IN_ROOT = 0x10


class _PerfEventAttr(ctypes.Structure):
    """struct perf_event_attr, PERF_ATTR_SIZE_VER0: a tracepoint needs no more."""

    _fields_ = [
        ("type", _u32),
        ("size", _u32),
        ("config", _u64),
        ("sample_period", _u64),
        ("sample_type", _u64),
        ("read_format", _u64),
        ("flags", _u64),
        ("wakeup_events", _u32),
        ("bp_type", _u32),
        ("bp_addr", _u64),
    ]


class _OpenHow(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = [("flags", _u64), ("mode", _u64), ("resolve", _u64)]


class _ProgLoadAttr(ctypes.Structure):
    """union bpf_attr of BPF_PROG_LOAD, up to attach_btf_id."""

    _fields_ = [
        ("prog_type", _u32),
        ("insn_cnt", _u32),
        ("insns", _u64),
        ("license", _u64),
        ("log_level", _u32),
        ("log_size", _u32),
        ("log_buf", _u64),
        ("kern_version", _u32),
        ("prog_flags", _u32),
        ("prog_name", ctypes.c_char * 16),
        ("prog_ifindex", _u32),
        ("expected_attach_type", _u32),
        ("prog_btf_fd", _u32),
        ("func_info_rec_size", _u32),
        ("func_info", _u64),
        ("func_info_cnt", _u32),
        ("line_info_rec_size", _u32),
        ("line_info", _u64),
        ("line_info_cnt", _u32),
        ("attach_btf_id", _u32),
    ]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _syscall(call: str, subject: object, number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", str(subject))
    return int(result)


def perf_event_open_tracepoint(tracepoint: int) -> int:
    """A perf event of the tracepoint with that id.

    For every process, on CPU 0. Programs attached to it run on every CPU all the same: they are attached to
    the tracepoint, not to the event.
    """
    attr = _PerfEventAttr(type=_PERF_TYPE_TRACEPOINT, size=ctypes.sizeof(_PerfEventAttr), config=tracepoint)
    number = _NR_PERF_EVENT_OPEN[platform.machine()]
    arguments = (
        ctypes.c_long(-1),
        ctypes.c_long(0),
        ctypes.c_long(-1),
        ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC),
    )
    return _syscall("perf_event_open", tracepoint, number, ctypes.byref(attr), *arguments)


def mount_detached(kind: str, **parameters: str) -> int:
    """A new mount of a filesystem that is in no mount namespace: it lives as long as the descriptor.

    `parameters` as of mount -o; an empty text is a flag. ENOSYS before Linux 5.2, which has no fsopen(2).
    """
    name = kind.encode()
    context = _syscall("fsopen", kind, _NR_FSOPEN, name, ctypes.c_ulong(_FSOPEN_CLOEXEC))
    try:
        for key, value in parameters.items():
            command = ctypes.c_ulong(_FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG)
            text = value.encode() if value else None
            given = (ctypes.c_long(context), command, key.encode(), text, ctypes.c_ulong(0))
            _syscall("fsconfig", kind, _NR_FSCONFIG, *given)
        create = (ctypes.c_ulong(_FSCONFIG_CMD_CREATE), None, None, ctypes.c_ulong(0))
        _syscall("fsconfig", kind, _NR_FSCONFIG, ctypes.c_long(context), *create)
        flags = (ctypes.c_ulong(_FSMOUNT_CLOEXEC), ctypes.c_ulong(0))
        return _syscall("fsmount", kind, _NR_FSMOUNT, ctypes.c_long(context), *flags)
    finally:
        os.close(context)


def move_mount(mount: int, path: str) -> None:
    """Put a detached mount at a path of this mount namespace."""
    target = (ctypes.c_long(_AT_FDCWD), os.fsencode(path), ctypes.c_ulong(_MOVE_MOUNT_F_EMPTY_PATH))
    _syscall("move_mount", path, _NR_MOVE_MOUNT, ctypes.c_long(mount), b"", *target)


def open_in_root(root: int, path: str) -> int:
    """openat2(2) with O_PATH and RESOLVE_IN_ROOT."""
    how = _OpenHow(flags=os.O_PATH | os.O_CLOEXEC, resolve=_RESOLVE_IN_ROOT)
    arguments = (
        ctypes.c_long(root),
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.c_ulong(ctypes.sizeof(how)),
    )
    return _syscall("openat2", path, _NR_OPENAT2, *arguments)


def unmount(path: str) -> None:
    """umount2(2) with MNT_DETACH."""
    if _libc.umount2(os.fsencode(path), 2) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"umount2: {os.strerror(code)}", path)


def load_trivial_program(kind: int, attach_type: int) -> int:
    """A program that allows everything: it loads if the kernel has that attach type."""
    code = bytes([0xB7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])  # r0 = 1; exit
    return load_program(kind, attach_type, code)


def load_program(
    kind: int, attach_type: int, code: bytes, attach_to: int = 0, *, said: ctypes.Array[Any] | None = None
) -> int:
    """A program of a few instructions. `attach_to` is the BTF id of the kernel function that it is for.

    `said` takes the verifier's log.
    """
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    attr = _ProgLoadAttr(
        prog_type=kind,
        insn_cnt=len(code) // 8,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(licence),
        expected_attach_type=attach_type,
        attach_btf_id=attach_to,
    )
    if said is not None:
        attr.log_level, attr.log_size, attr.log_buf = 1, len(said), ctypes.addressof(said)
    number = _NR_BPF[platform.machine()]
    size = ctypes.c_ulong(ctypes.sizeof(attr))
    return _syscall("bpf", "BPF_PROG_LOAD", number, ctypes.c_long(_BPF_PROG_LOAD), ctypes.byref(attr), size)


def may_call(kind: int, attach_type: int, helper: int) -> bool:
    """Whether programs of that type have a helper (enum bpf_func_id): the verifier rejects unknown ones."""
    code = struct.pack("<BBhiBBhi", 0x85, 0, 0, helper, 0x95, 0, 0, 0)  # call helper; exit
    said = ctypes.create_string_buffer(4096)
    try:
        os.close(load_program(kind, attach_type, code, said=said))
    except OSError:
        # "unknown func", from 6.13 on "program of this type cannot use helper"; else it is our arguments
        return (
            bool(said.value) and b"unknown func" not in said.value and b"cannot use helper" not in said.value
        )
    return True


def map_freeze(fd: int) -> None:
    """From here on no system call can change the map (87df15de441b, 5.2)."""
    attr = ctypes.c_uint32(fd)
    arguments = (ctypes.c_long(_BPF_MAP_FREEZE), ctypes.byref(attr), ctypes.c_ulong(ctypes.sizeof(attr)))
    _syscall("bpf", "BPF_MAP_FREEZE", _NR_BPF[platform.machine()], *arguments)


def prctl(option: int) -> None:
    """prctl(2) without arguments."""
    if _libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(0),) * 4) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}", str(option))


def return_free_memory() -> None:
    """malloc_trim(3): loading takes far more memory than stays in use. Only glibc has it; else no effect."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
