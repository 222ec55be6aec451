# SPDX-License-Identifier: Apache-2.0
"""Finds out whether 32-bit and x32 calls can be made here, and which functions of the kernel they pass.
Found by making one of each kind in a child, never by the kernel's version.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

from ringfence import compiled
from ringfence.bpf.attach import kprobe_behind_entry
from ringfence_linux.architecture import architecture

__all__ = ["NarrowCalls", "find"]

#: function of the kernel -> the calls that it dispatches, as a word for the program that makes one
_FUNCTIONS = {"ia32_sys_call": "32", "x32_sys_call": "x32"}
_REFUSED = 1


class NarrowCalls(NamedTuple):
    """Calls with numbers of their own, which tracepoints of single calls do not see.

    - `possible`: programs can make some.
    - `entries`: functions that all of them pass, and where perf has a kprobe; empty: some pass elsewhere.
    """

    possible: bool
    entries: frozenset[str] = frozenset()


def find(*, kprobes: bool) -> NarrowCalls:
    """Makes one call of each kind in a child. `kprobes`: count it at its function as well.

    A kind that cannot be tried counts as possible, and as one that passes elsewhere.
    """
    if architecture().compat is None:  # their numbers are in no table
        return NarrowCalls(False)
    tried = {function: _try(abi, function if kprobes else "") for function, abi in _FUNCTIONS.items()}
    passed = {function: counted for function, (possible, counted) in tried.items() if possible}
    return NarrowCalls(bool(passed), frozenset(passed) if all(passed.values()) else frozenset())


def _try(abi: str, function: str) -> tuple[bool, bool]:
    """Makes one such call. Returns (True if it was served, True if it passed the function)."""
    counter = -1
    if function:
        with suppress(OSError):
            counter = kprobe_behind_entry(function, counts=True)
    try:
        possible = _status(abi) != _REFUSED
        return possible, counter >= 0 and int.from_bytes(os.read(counter, 8), "little") > 0
    finally:
        if counter >= 0:
            os.close(counter)


def _status(abi: str) -> int:
    """Returns the exit status of the program that makes the call; -1 if it cannot be run."""
    try:
        child = os.posix_spawn(compiled.directory() / "attacks", ["attacks", "narrow", abi], {})
    except OSError:
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
