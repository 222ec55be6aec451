# SPDX-License-Identifier: Apache-2.0
"""The adversary's program (attacks/*.c, tests/support/attacks): static, all that a container needs."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import force

__all__ = ["SETUP", "Attempt", "build"]

_TESTS = Path(__file__).resolve().parents[1]
_SOURCES = sorted([*_TESTS.glob("adversary/attacks/*.c"), *_TESTS.glob("support/attacks/*.c")])
#: exit status: what the attack needs could not be made, and nothing was tried
SETUP = 3
REFUSED, KILLED = 77, 137


class Attempt:
    """The end of one run of the program: its exit status (128 and the signal) and its output."""

    def __init__(self, status: int, output: str) -> None:
        self.status, self.output = status, output

    @property
    def killed(self) -> bool:
        """True if SIGKILL ended it."""
        return self.status == KILLED

    @property
    def refused(self) -> bool:
        """True if its call failed with EPERM."""
        return self.status == REFUSED

    @property
    def how(self) -> str:
        """Its end in a word: `killed`, the errno of the call, or `worked`."""
        if self.killed:
            return "killed"
        last = next((line for line in reversed(self.output.splitlines()) if line), "")
        if self.status == 0:
            return "worked"
        return last.removeprefix("failed ") or f"status {self.status}"


def build(directory: Path) -> Path:
    """Compiles the program into a directory and returns its path."""
    made = directory / "adversary"
    words = ["-O1", "-Wall", "-static", "-pthread", "-o", str(made), *map(str, _SOURCES)]
    subprocess.run([force.need_program("gcc"), *words], check=True)
    return made
