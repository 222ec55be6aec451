# SPDX-License-Identifier: Apache-2.0
"""Finds out if BPF programs can decide at LSM hooks, by letting one decide; and the available hooks."""

from __future__ import annotations

import errno
import os
import re
import struct
from pathlib import Path

from ringfence.bpf import _libbpf, _syscalls
from ringfence.bpf.lsm import HOOKS
from ringfence_linux import syscalls

__all__ = ["available_hooks"]

_VMLINUX = Path("/sys/kernel/btf/vmlinux")
_PROG_TYPE_LSM = 29
_NOT_AN_OPTION = 0x52464E43  # of prctl(2): no kernel has it, so denying it is harmless
#: EPERM for that option of prctl only: w1 = option; r0 = 0; if equal r0 = -1; exit
_REFUSE_IT = struct.pack(
    "<" + "BBhi" * 5,
    *(0x79, 0x11, 0, 0),
    *(0xB7, 0, 0, 0),
    *(0x56, 1, 1, _NOT_AN_OPTION),
    *(0xB7, 0, 0, -errno.EPERM),
    *(0x95, 0, 0, 0),
)


def available_hooks() -> tuple[frozenset[str], str]:
    """Returns the hooks of ringfence.bpf.lsm where programs can decide; if none, the reason."""
    lack = _lack()
    if lack:
        return frozenset(), lack
    names = re.findall(rb"(?<=\0bpf_lsm_)\w+(?=\0)", _VMLINUX.read_bytes())
    return HOOKS & {name.decode() for name in names}, ""


def _lack() -> str:
    """Returns why LSM programs cannot decide here; empty: they can."""
    try:
        # Without a function: if LSM programs are supported this is EINVAL, which is quick to find out.
        os.close(_syscalls.load_program(_PROG_TYPE_LSM, _libbpf.ATTACH_LSM_MAC, _REFUSE_IT))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return "this kernel does not allow loading LSM programs"
    try:
        hook = _libbpf.lsm_hook_id("task_prctl")
    except OSError:
        return "this kernel has no BPF-LSM (CONFIG_BPF_LSM)"
    try:
        return _decides(hook)
    except OSError as error:
        return f"this kernel refuses LSM programs: {error.strerror}"


def _decides(hook: int) -> str:
    program = _syscalls.load_program(_PROG_TYPE_LSM, _libbpf.ATTACH_LSM_MAC, _REFUSE_IT, hook)
    try:
        link = _libbpf.raw_tracepoint_open(program)
    finally:
        os.close(program)
    try:
        syscalls.prctl(_NOT_AN_OPTION)
    except OSError as error:
        if error.errno == errno.EPERM:
            return ""
    finally:
        os.close(link)
    return "bpf is not among the active security modules (boot with lsm=...,bpf)"
