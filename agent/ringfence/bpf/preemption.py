# SPDX-License-Identifier: Apache-2.0
"""Finds out how the kernel preempts itself. Where it does, it may skip a tracing program: a task that is
preempted inside keeps the program off for every other task of that CPU (docs/reference/kernel-compat.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from ringfence.bpf import kernel_build
from ringfence_linux import syscalls

__all__ = ["Preemption", "find", "from_build", "from_debugfs"]

_MOUNTED = "/sys/kernel/debug"
_FILE = "sched/preempt"


class Preemption(StrEnum):
    """The kernel's preemption model: the words of the boot parameter `preempt=`."""

    NONE = "none"
    VOLUNTARY = "voluntary"
    FULL = "full"
    LAZY = "lazy"
    UNKNOWN = "unknown"

    @property
    def may_skip(self) -> bool:
        """True if the kernel may skip a tracing program; assumed if unknown."""
        return self not in (Preemption.NONE, Preemption.VOLUNTARY)


#: the model that a kernel without `preempt=` has, the strongest first: several may be set
_BUILT = {
    "PREEMPT_RT": Preemption.FULL,
    "PREEMPT": Preemption.FULL,
    "PREEMPT_LAZY": Preemption.LAZY,
    "PREEMPT_VOLUNTARY": Preemption.VOLUNTARY,
    "PREEMPT_NONE": Preemption.NONE,
}


def find(otherwise: Preemption = Preemption.UNKNOWN) -> Preemption:
    """Returns the current model: of debugfs, else of the build, else `otherwise`."""
    found = from_debugfs(_debugfs())
    if found is Preemption.UNKNOWN:
        found = from_build(kernel_build.read(), _command_line())
    return otherwise if found is Preemption.UNKNOWN else found


def from_debugfs(text: str) -> Preemption:
    """Returns the word in parentheses: `none voluntary (full) lazy`."""
    match = re.search(r"\((\w+)\)", text)
    return Preemption(match[1]) if match and match[1] in list(Preemption) else Preemption.UNKNOWN


def from_build(build: Mapping[str, str], command_line: str) -> Preemption:
    """Returns the model that a kernel of this configuration was booted with."""
    if build.get("PREEMPT_DYNAMIC") == "y":
        asked = [
            word.removeprefix("preempt=") for word in command_line.split() if word.startswith("preempt=")
        ]
        if asked and asked[-1] in list(Preemption):
            return Preemption(asked[-1])
    return next((model for name, model in _BUILT.items() if build.get(name) == "y"), Preemption.UNKNOWN)


def _debugfs() -> str:
    """Returns the file that a kernel with CONFIG_PREEMPT_DYNAMIC has; empty: it has none."""
    with suppress(OSError):
        return Path(_MOUNTED, _FILE).read_text()
    with suppress(OSError):
        mount = syscalls.mount_detached("debugfs")
        try:
            fd = os.open(_FILE, os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount)
        finally:
            os.close(mount)
        with open(fd, encoding="ascii") as file:
            return file.read()
    return ""


def _command_line() -> str:
    with suppress(OSError):
        return Path("/proc/cmdline").read_text()
    return ""
