# SPDX-License-Identifier: Apache-2.0
"""Finds out if programs can decide at the functions that call the LSM hooks (`fmod_ret/security_*`), for
kernels where BPF-LSM does not decide. Found by letting one decide, never by the kernel's version.
"""

from __future__ import annotations

import errno
import re
from contextlib import suppress
from pathlib import Path

from ringfence.bpf import _libbpf, hook_trial, kernel_build
from ringfence.bpf.lsm import HOOKS, function_of
from ringfence.bpf.lsm_probe import VMLINUX

__all__ = ["available_hooks", "hooks_in", "setting_against"]

_ENOTSUPP = 524  # include/linux/errno.h: not in Python's errno
_WHY = {
    errno.EPERM: "it does not allow them",
    errno.EACCES: "it does not allow them",
    errno.E2BIG: "other products have attached the maximum number of programs to the function (38)",
    errno.EBUSY: "another tracer occupies the function",
    errno.EINVAL: "it cannot attach programs to its functions (no BPF trampolines)",
    errno.EOPNOTSUPP: "it cannot attach programs to its functions (no BPF trampolines)",
    _ENOTSUPP: "it cannot attach programs to its functions (no BPF trampolines; on arm64 from Linux 6.4 on)",
}
_NOT_DECIDING = "a program at a security function decided nothing"


def available_hooks() -> tuple[frozenset[str], str]:
    """Returns the hooks of ringfence.bpf.lsm whose functions programs can decide; if none, the reason."""
    lack = setting_against(
        _text("/proc/sys/kernel/ftrace_enabled"),
        _text("/proc/version"),
    )
    lack = lack or _lack()
    return (frozenset(), lack) if lack else (hooks_in(VMLINUX.read_bytes()), "")


def hooks_in(btf: bytes) -> frozenset[str]:
    """Returns the hooks with a function in this BTF of a kernel."""
    names = {name.decode() for name in re.findall(rb"(?<=\0)security_\w+(?=\0)", btf)}
    return frozenset(hook for hook in HOOKS if function_of(hook) in names)


def setting_against(ftrace: str, version: str) -> str:
    """Returns the setting or property of this kernel that rules it out; empty: none.

    Arguments are the contents of kernel.ftrace_enabled and of /proc/version.
    """
    if ftrace.strip() == "0":
        return "kernel.ftrace_enabled is 0, which turns off programs at functions"
    if kernel_build.is_link_optimised(kernel_build.read(), version):
        return (
            "this kernel was built with Clang's link-time optimisation, which may inline security functions"
        )
    return ""


def _lack() -> str:
    """Returns why programs cannot decide at functions here; empty: they can."""
    kind, attach_type = _libbpf.TYPE_TRACING, _libbpf.ATTACH_MODIFY_RETURN
    if not hook_trial.may_load(kind, attach_type):
        return f"this kernel refuses programs at security functions: {_WHY[errno.EPERM]}"
    name = function_of(hook_trial.HOOK)
    try:
        function = _libbpf.kernel_function_id(name, attach_type)
    except OSError:
        return f"this kernel's BTF has no function {name}"
    try:
        return "" if hook_trial.refuses(kind, attach_type, function) else _NOT_DECIDING
    except OSError as error:
        reason = _WHY.get(error.errno or 0, error.strerror)
        return f"this kernel refuses programs at security functions: {reason}"


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text()
    return ""
