# SPDX-License-Identifier: Apache-2.0
"""bpf(2) and perf_event_open(2) where libbpf does not do, and malloc_trim(3).

Struct layouts are those of include/uapi/linux/{perf_event,bpf}.h.
"""

from __future__ import annotations

import ctypes
import os
from struct import Struct, pack
from typing import Any

from ringfence_linux import syscalls

_PERF_TYPE_TRACEPOINT, _PERF_INHERIT = 2, 2
_BPF_PROG_LOAD, _BPF_PROG_TEST_RUN, _BPF_MAP_FREEZE = 5, 10, 22
#: struct perf_event_attr, PERF_ATTR_SIZE_VER0: type, size, config; a tracepoint needs no more
_PERF_EVENT_ATTR = Struct("IIQ48x")
#: PERF_ATTR_SIZE_VER1, up to config2: type, size, config, ..., flags, ..., kprobe_func, probe_offset
_PERF_EVENT_ATTR_KPROBE = Struct("IIQ24xQ8xQQ")
#: union bpf_attr of BPF_PROG_LOAD, up to attach_btf_id: prog_type, insn_cnt, insns, license, log_level,
#: log_size, log_buf, ..., expected_attach_type, ..., attach_btf_id
_PROG_LOAD = Struct("IIQQIIQ28xI36xI")
#: union bpf_attr of BPF_PROG_TEST_RUN: prog_fd, retval, ..., ctx_size_in, ctx_size_out, ctx_in, ctx_out, ...
_TEST_RUN = Struct("Ii32xIIQQ8x")


def perf_event_open_tracepoint(tracepoint: int) -> int:
    """A perf event of the tracepoint with that id.

    For every process, on CPU 0. Programs attached to it run on every CPU all the same: they are attached to
    the tracepoint, not to the event.
    """
    attributes = _PERF_EVENT_ATTR.pack(_PERF_TYPE_TRACEPOINT, _PERF_EVENT_ATTR.size, tracepoint)
    return syscalls.perf_event_open(attributes, pid=-1, cpu=0, subject=tracepoint)


def perf_event_open_kprobe(kind: int, function: str, offset: int, *, counts: bool = False) -> int:
    """A perf event of a kprobe that ends with it, for every process. `kind`: the type of the kprobe PMU.

    `counts`: for this thread and its future children; a read returns how often they passed it.
    OSError EILSEQ or EINVAL if no instruction begins at `offset` in the kernel's function.
    """
    name = ctypes.create_string_buffer(function.encode())
    attributes = _PERF_EVENT_ATTR_KPROBE.pack(
        kind, _PERF_EVENT_ATTR_KPROBE.size, 0, _PERF_INHERIT * counts, ctypes.addressof(name), offset
    )
    pid, cpu = (0, -1) if counts else (-1, 0)
    return syscalls.perf_event_open(attributes, pid=pid, cpu=cpu, subject=function)


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
    log = (0, 0, 0) if said is None else (1, len(said), ctypes.addressof(said))
    program = (kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    attributes = _PROG_LOAD.pack(*program, *log, attach_type, attach_to)
    return syscalls.bpf(_BPF_PROG_LOAD, attributes, path="BPF_PROG_LOAD", blocking=True)


def may_call(kind: int, attach_type: int, helper: int) -> bool:
    """Returns True if programs of that type have a helper (enum bpf_func_id).

    The verifier rejects unknown ones.
    """
    code = pack("<BBhiBBhi", 0x85, 0, 0, helper, 0x95, 0, 0, 0)  # call helper; exit
    said = ctypes.create_string_buffer(4096)
    try:
        os.close(load_program(kind, attach_type, code, said=said))
    except OSError:
        # "unknown func", from 6.13 on "program of this type cannot use helper"; else it is our arguments
        return (
            bool(said.value) and b"unknown func" not in said.value and b"cannot use helper" not in said.value
        )
    return True


def run_program(fd: int, context: bytes) -> int:
    """Runs a program of the type raw_tp once, in this process (5.10). Returns its result."""
    given = ctypes.create_string_buffer(context, len(context))
    packed = _TEST_RUN.pack(fd, 0, len(context), 0, ctypes.addressof(given), 0)
    attributes = ctypes.create_string_buffer(packed, len(packed))
    syscalls.bpf(_BPF_PROG_TEST_RUN, ctypes.addressof(attributes), len(packed), path="BPF_PROG_RUN")
    return int(_TEST_RUN.unpack(attributes.raw)[1])


def address_of(data: bytes) -> int:
    """The address of these bytes, which must stay referenced."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def map_freeze(fd: int) -> None:
    """From here on no system call can change the map (87df15de441b, 5.2)."""
    syscalls.bpf(_BPF_MAP_FREEZE, pack("I", fd), path="BPF_MAP_FREEZE", blocking=True)


def return_free_memory() -> None:
    """malloc_trim(3): loading takes far more memory than stays in use. Only glibc has it; else no effect."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
