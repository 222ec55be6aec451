# SPDX-License-Identifier: Apache-2.0
"""Errors of sandboxes. `ringfence run` ends with the workload's status, so what is ours ends with docker's
125.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import Error

__all__ = ["SandboxError", "UsageError", "translated"]

FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


class SandboxError(Error):
    """A sandbox could not be made, found or ended."""

    exit_code = FAILED


class UsageError(SandboxError):
    """What was asked for makes no sense."""


@contextmanager
def translated(code: int = 0) -> Iterator[None]:
    """The runtime's errors and the kernel's as this program's; `code` is the exit code, 0: of the launch."""
    from ringfence_runtime.errors import Error as RuntimeProblem

    try:
        yield
    except SandboxError as error:
        error.exit_code = code or error.exit_code
        raise
    except RuntimeProblem as error:
        raise _failure(error.message, error.hint, code) from None
    except OSError as error:
        where = f" ({error.filename!a})" if error.filename else ""
        raise _failure(f"{error.strerror or error}{where}", "", code) from None


def _failure(message: str, hint: str, code: int) -> SandboxError:
    failure = SandboxError(message, hint=hint)
    failure.exit_code = code or _status(message)
    return failure


def _status(message: str) -> int:
    """A shell's codes for a program that is missing or cannot be executed."""
    if not message.startswith("exec: "):
        return FAILED
    missing = "executable file not found" in message or message.endswith("no such file or directory")
    return NOT_FOUND if missing else NOT_EXECUTABLE
