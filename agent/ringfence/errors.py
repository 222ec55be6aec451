# SPDX-License-Identifier: Apache-2.0
"""All errors that users see. Only the commands turn one into an exit code; a traceback means a bug."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = [
    "AgentUnreachableError",
    "AlreadyRunningError",
    "ConfigError",
    "Error",
    "KernelError",
    "NotPermittedError",
    "PolicyError",
    "ProbeError",
    "Problem",
]


class Error(Exception):
    """The root class. `message` says what happened, `hint` what to do about it (may be empty)."""

    #: the exit code of the process if this error ends it
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ConfigError(Error):
    """The configuration or the command line cannot be used."""

    exit_code = 2


class Problem(NamedTuple):
    """One error in one file. Lines and columns count from 1; 0 means unknown."""

    file: str
    line: int
    column: int
    where: str  # rules[0].action
    message: str

    def __str__(self) -> str:
        file = self.file if self.file.isprintable() else ascii(self.file)[1:-1]  # always one line
        place = ":".join([file, *(str(n) for n in (self.line, self.column) if n)])
        return ": ".join(part for part in (place, self.where, self.message) if part)


class PolicyError(Error):
    """A set of policies was refused. `problems` contains every error found, in file order."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str = "") -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = list(problems)


class ProbeError(Error):
    """A custom probe was not loaded. `log` is the output of clang and the verifier."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem], *, hint: str = "", log: str = "") -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = list(problems)
        self.log = log


class KernelError(Error):
    """The kernel or libbpf lacks what is needed. `log` is the output of libbpf and the verifier."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "", log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log


class NotPermittedError(KernelError):
    """The kernel supports it, but does not permit it to this user."""

    exit_code = 4


class AlreadyRunningError(Error):
    """Another agent is running on this node."""

    exit_code = 5


class AgentUnreachableError(Error):
    """A command needs the running agent, which does not respond."""

    exit_code = 6
