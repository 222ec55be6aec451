# SPDX-License-Identifier: Apache-2.0
"""Skipping, and refusing to skip.

A test that needs something this machine lacks skips, and says which part is missing. `RINGFENCE_FORCE` names
the parts (`root,vm,podman`, or `all`) whose absence is a failure instead. A test that cannot run on *this
kernel* whatever is installed (pure cgroup v2 on a hybrid host, say) is `elsewhere`: it is listed, and never
forced, because the virtual machines run it.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

__all__ = [
    "ELSEWHERE",
    "VARIABLE",
    "elsewhere",
    "forced",
    "in_guest",
    "missing",
    "need_program",
    "need_root",
    "no_lsm",
]

VARIABLE = "RINGFENCE_FORCE"
ELSEWHERE = "elsewhere: "


def forced(part: str) -> bool:
    """True where a missing `part` is a failure."""
    wanted = {word.strip() for word in os.environ.get(VARIABLE, "").split(",")}
    return part in wanted or "all" in wanted


def missing(part: str, reason: str) -> NoReturn:
    """End the test: skipped because `part` is missing, or failed where that part is forced."""
    if forced(part):
        pytest.fail(f"{reason} (and {VARIABLE} forces {part!r})", pytrace=False)
    pytest.skip(f"{reason} [{VARIABLE}={part}]")


def elsewhere(reason: str) -> NoReturn:
    """End the test: this kernel or cgroup layout is another one; a virtual machine runs it."""
    pytest.skip(ELSEWHERE + reason)


def no_lsm(lack: str) -> NoReturn:
    """End the test: LSM programs decide nothing here. In a virtual machine that is a failure."""
    if in_guest():
        pytest.fail(f"BPF-LSM decides nothing in this virtual machine: {lack}", pytrace=False)
    elsewhere(f"no BPF-LSM: {lack}")


def in_guest() -> bool:
    """True in a virtual machine of tools/vm."""
    return bool(os.environ.get("RINGFENCE_VM"))


def need_root() -> None:
    """Skip or fail unless we are root."""
    if os.geteuid() != 0:
        missing("root", "needs root")


def need_program(name: str) -> str:
    """The path of a program; skips or fails where it is not installed."""
    search = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=search)
    if found is None:
        missing(name, f"needs the program {name}")
    return found
