# SPDX-License-Identifier: Apache-2.0
"""The program that attacks (tests/escape/attacks/*.c): linked statically, and shipped compiled.

A node has no compiler, and the program is the whole root filesystem of the containers that it runs in.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ringfence.errors import Error

__all__ = ["DID_NOT_RUN", "PROGRAM", "REFUSED", "WORKED", "Attempt", "program", "read_attempt"]

PROGRAM = Path(__file__).resolve().parents[1] / "_bpf/attacks"
# Exit codes of attacks.h.
WORKED, ERROR, USAGE, SETUP, REFUSED = 0, 1, 2, 3, 77
#: of a program that the kernel was to run and did not: refused or killed, nobody can tell from outside
DID_NOT_RUN = 78


def program() -> Path:
    """Where it lies. Raises Error where it was not built."""
    if not PROGRAM.exists():
        raise Error("the attack program is not there", hint="in a checkout, `make build` makes it")
    return PROGRAM


class Attempt(NamedTuple):
    """What one run of the program says."""

    call: str  # the system call that was made; empty: none was
    at_ns: int  # CLOCK_BOOTTIME just before it
    status: int  # exit status; 137: killed
    said: str  # how the call ended, in the program's words

    @property
    def killed(self) -> bool:
        """True where SIGKILL ended it."""
        return self.status == 137

    @property
    def refused(self) -> bool:
        """True where the call gave EPERM."""
        return self.status == REFUSED

    @property
    def stopped(self) -> bool:
        """True where it came to nothing, one way or the other."""
        return self.killed or self.refused or self.status == DID_NOT_RUN

    @property
    def tried(self) -> bool:
        """True where the call was made."""
        return bool(self.call)

    @property
    def absent(self) -> bool:
        """True where this kernel has no such call, or the file that was meant."""
        return self.said in ("failed ENOSYS", "failed ENOENT")


def read_attempt(status: int, output: str) -> Attempt:
    """Read the program's standard output. A negative status is a signal's number, as subprocess gives it."""
    found = re.search(r"^call (\S+) at (\d+)$", output, re.M)
    said = [line for line in output.splitlines() if line and not line.startswith("call ")]
    return Attempt(
        found[1] if found else "",
        int(found[2]) if found else 0,
        128 - status if status < 0 else status,
        said[-1] if said else "",
    )
