# SPDX-License-Identifier: Apache-2.0
"""Skipping, and refusing to skip.

A test that needs something this machine lacks is skipped, with the missing part as its reason.
`RINGFENCE_FORCE` names the parts (`root,vm,podman`, or `all`) whose absence is a failure instead.
A test that cannot run on *this kernel*, whatever is installed (pure cgroup v2 on a hybrid host,
for example), is `elsewhere`: it is listed, and never forced, because the virtual machines run it.
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
    """Returns True if a missing `part` is a failure."""
    wanted = {word.strip() for word in os.environ.get(VARIABLE, "").split(",")}
    return part in wanted or "all" in wanted


def missing(part: str, reason: str) -> NoReturn:
    """End the test: skipped because `part` is missing, or failed where that part is forced."""
    if forced(part):
        pytest.fail(f"{reason} (and {VARIABLE} forces {part!r})", pytrace=False)
    pytest.skip(f"{reason} [{VARIABLE}={part}]")


def elsewhere(reason: str) -> NoReturn:
    """End the test: it needs another kernel or cgroup layout; a virtual machine runs it."""
    pytest.skip(ELSEWHERE + reason)


def no_lsm(lack: str) -> NoReturn:
    """End the test: LSM programs do not decide here. In a virtual machine that is a failure."""
    if in_guest():
        pytest.fail(f"BPF-LSM decides nothing in this virtual machine: {lack}", pytrace=False)
    elsewhere(f"no BPF-LSM: {lack}")


def in_guest() -> bool:
    """Returns True in a virtual machine of tools/vm."""
    return bool(os.environ.get("RINGFENCE_VM"))


def need_root() -> None:
    """Skip or fail unless the tests run as root."""
    if os.geteuid() != 0:
        missing("root", "needs root")


def need_program(name: str) -> str:
    """Returns the path of a program; skips or fails if it is not installed."""
    search = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(name, path=search)
    if found is None:
        missing(name, f"needs the program {name}")
    return found
