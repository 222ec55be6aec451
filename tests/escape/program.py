# SPDX-License-Identifier: Apache-2.0
"""The program that attacks: attacks/*.c, linked statically so that it runs in any container."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["PROGRAM", "REFUSED", "WORKED", "Attempt", "build", "read_attempt"]

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "build/attacks"
# Exit codes of attacks.h.
WORKED, ERROR, USAGE, SETUP, REFUSED = 0, 1, 2, 3, 77


def build() -> Path:
    """Compile it where a source is newer; gives its path."""
    sources = sorted((HERE / "attacks").glob("*.c"))
    newest = max(path.stat().st_mtime for path in (HERE / "attacks").iterdir())
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < newest:
        PROGRAM.parent.mkdir(exist_ok=True)
        fresh = PROGRAM.with_name(f"attacks.{os.getpid()}")
        subprocess.run(["gcc", "-O1", "-Wall", "-static", "-o", str(fresh), *map(str, sources)], check=True)
        fresh.rename(PROGRAM)
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
