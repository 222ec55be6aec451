# SPDX-License-Identifier: Apache-2.0
"""Lets a BPF program refuse a call that is harmless to refuse, to find out if such programs decide."""

from __future__ import annotations

import errno
import os
import struct

from ringfence.bpf import _libbpf, _syscalls
from ringfence_linux import syscalls

__all__ = ["HOOK", "may_load", "refuses"]

#: the hook at which the program is tried
HOOK = "task_prctl"
_NOT_AN_OPTION = 0x52464E43  # of prctl(2): no kernel has it
#: EPERM for that option of prctl only: w1 = option; r0 = 0; if equal r0 = -1; exit
_REFUSE_IT = struct.pack(
    "<" + "BBhi" * 5,
    *(0x79, 0x11, 0, 0),
    *(0xB7, 0, 0, 0),
    *(0x56, 1, 1, _NOT_AN_OPTION),
    *(0xB7, 0, 0, -errno.EPERM),
    *(0x95, 0, 0, 0),
)


def may_load(kind: int, attach_type: int) -> bool:
    """Returns False if the kernel allows no program of that type.

    Without a function the load fails with EINVAL if the type is supported, which is quick to find out.
    """
    try:
        os.close(_syscalls.load_program(kind, attach_type, _REFUSE_IT))
    except OSError as error:
        return error.errno not in (errno.EPERM, errno.EACCES)
    return True


def refuses(kind: int, attach_type: int, function: int) -> bool:
    """Attaches the program for an instant. `function`: the BTF id. OSError if the kernel refuses it."""
    program = _syscalls.load_program(kind, attach_type, _REFUSE_IT, function)
    try:
        link = _libbpf.raw_tracepoint_open(program)
    finally:
        os.close(program)
    try:
        syscalls.prctl(_NOT_AN_OPTION)
    except OSError as error:
        return error.errno == errno.EPERM
    finally:
        os.close(link)
    return False
