# SPDX-License-Identifier: Apache-2.0
"""The attack program (tests/escape/attacks/*.c): linked statically, and shipped compiled.

A node has no compiler, and the program is the whole root filesystem of its containers.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from ringfence import compiled
from ringfence.errors import Error

__all__ = ["DID_NOT_RUN", "PROGRAM", "REFUSED", "WORKED", "Attempt", "program", "read_attempt"]

PROGRAM = compiled.directory() / "attacks"
# Exit codes of attacks.h.
WORKED, ERROR, USAGE, SETUP, REFUSED = 0, 1, 2, 3, 77
#: the kernel did not run the helper: from outside, a refused one cannot be distinguished from a killed one
DID_NOT_RUN = 78


def program() -> Path:
    """Returns its path. Raises Error if it was not built."""
    if not PROGRAM.exists():
        raise Error("the attack program does not exist", hint="in a checkout, `make build` builds it")
    return PROGRAM


class Attempt(NamedTuple):
    """The output of one run of the program."""

    call: str  # the system call that was made; empty: none
    at_ns: int  # CLOCK_BOOTTIME just before it
    status: int  # exit status; 137: killed
    said: str  # how the call ended, as the program prints it

    @property
    def killed(self) -> bool:
        """True if SIGKILL ended it."""
        return self.status == 137

    @property
    def refused(self) -> bool:
        """True if the call failed with EPERM."""
        return self.status == REFUSED

    @property
    def stopped(self) -> bool:
        """True if the attack had no effect: killed, refused, or not run."""
        return self.killed or self.refused or self.status == DID_NOT_RUN

    @property
    def tried(self) -> bool:
        """True if the call was made."""
        return bool(self.call)

    @property
    def absent(self) -> bool:
        """True if this kernel lacks the call, or the target file does not exist."""
        return self.said in ("failed ENOSYS", "failed ENOENT")


def read_attempt(status: int, output: str) -> Attempt:
    """Parses the program's standard output. A negative status is a signal number, as in subprocess."""
    found = re.search(r"^call (\S+) at (\d+)$", output, re.M)
    said = [line for line in output.splitlines() if line and not line.startswith("call ")]
    return Attempt(
        found[1] if found else "",
        int(found[2]) if found else 0,
        128 - status if status < 0 else status,
        said[-1] if said else "",
    )
