# SPDX-License-Identifier: Apache-2.0
"""How a system call is made: the C library's `syscall`, numbers and errors. Used by `_sys*` only.

Calls go through PyDLL: the interpreter's lock is kept, so a raw clone3 leaves the child with the lock held by
its only thread, as fork does.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["OLD", "X86", "as_bytes", "call", "libc", "syscall"]

libc = ctypes.PyDLL(None, use_errno=True)
syscall = libc["syscall"]
syscall.restype = ctypes.c_long
syscall.argtypes = (ctypes.c_long, *([ctypes.c_void_p] * 6))

# Numbers from 424 up are the same on every architecture; the few below differ.
MACHINE = os.uname().machine
X86 = MACHINE == "x86_64"
_NAMES = [
    "pivot_root",
    "mount",
    "umount2",
    "capset",
    "prctl",
    "setns",
    "unshare",
    "seccomp",
    "bpf",
    "ioprio_set",
    "sched_setattr",
    "keyctl",
    "personality",
    "set_mempolicy",
    "fstatfs",
    "execve",
    "capget",
    "execveat",
    "rt_sigaction",
]
# fmt: off
_X86_64 = (
    155, 165, 166, 126, 157, 308, 272, 317, 321, 251, 314, 250, 135, 238, 138, 59, 125, 322, 13,
)
_GENERIC = (
    41, 40, 39, 91, 167, 268, 97, 277, 280, 30, 274, 219, 92, 237, 44, 221, 90, 281, 134,
)
# fmt: on
OLD = dict(zip(_NAMES, _X86_64 if X86 else _GENERIC, strict=True))


def as_bytes(path: str | bytes) -> bytes:
    """As the kernel takes it."""
    return path if isinstance(path, bytes) else os.fsencode(path)


def call(name: str, number: int, *args: object, path: str | bytes = "") -> int:
    """Make it; OSError with its name, the reason and the path that it concerned."""
    result: int = syscall(number, *args, *((0,) * (6 - len(args))))
    if result < 0:
        code = ctypes.get_errno()
        shown = os.fsdecode(path)
        raise OSError(code, f"{name}: {os.strerror(code)}", shown or None)
    return result
