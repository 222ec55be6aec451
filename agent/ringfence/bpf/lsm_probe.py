# SPDX-License-Identifier: Apache-2.0
"""Finds out if BPF programs can decide at LSM hooks, by letting one decide; and the available hooks."""

from __future__ import annotations

import re
from pathlib import Path

from ringfence.bpf import _libbpf, hook_trial
from ringfence.bpf.lsm import HOOKS

__all__ = ["VMLINUX", "available_hooks"]

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_PROG_TYPE_LSM = 29


def available_hooks() -> tuple[frozenset[str], str]:
    """Returns the hooks of ringfence.bpf.lsm where programs can decide; if none, the reason."""
    lack = _lack()
    if lack:
        return frozenset(), lack
    names = re.findall(rb"(?<=\0bpf_lsm_)\w+(?=\0)", VMLINUX.read_bytes())
    return HOOKS & {name.decode() for name in names}, ""


def _lack() -> str:
    """Returns why LSM programs cannot decide here; empty: they can."""
    if not hook_trial.may_load(_PROG_TYPE_LSM, _libbpf.ATTACH_LSM_MAC):
        return "this kernel does not allow loading LSM programs"
    try:
        hook = _libbpf.kernel_function_id(hook_trial.HOOK, _libbpf.ATTACH_LSM_MAC)
    except OSError:
        return "this kernel has no BPF-LSM (CONFIG_BPF_LSM)"
    try:
        if hook_trial.refuses(_PROG_TYPE_LSM, _libbpf.ATTACH_LSM_MAC, hook):
            return ""
    except OSError as error:
        return f"this kernel refuses LSM programs: {error.strerror}"
    return "bpf is not among the active security modules (boot with lsm=...,bpf)"
