# SPDX-License-Identifier: Apache-2.0
"""Errors of sandboxes. `ringfence run` returns the workload's status, so its own errors are docker's 125."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ringfence.errors import Error, NotPermittedError

__all__ = ["SandboxError", "UsageError", "translated"]

_USE_SUDO = "this needs root: use sudo"
FAILED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127


class SandboxError(Error):
    """A sandbox could not be created, found or ended."""

    exit_code = FAILED


class UsageError(SandboxError):
    """The request is invalid."""


@contextmanager
def translated(code: int = 0) -> Iterator[None]:
    """Converts errors of the runtime and the kernel; `code` is the exit code, 0: of a launch.

    Missing privileges have their own code, except in a launch, which uses a shell's codes.
    """
    from ringfence_runtime.errors import Error as RuntimeProblem

    try:
        yield
    except SandboxError as error:
        error.exit_code = code or error.exit_code
        raise
    except RuntimeProblem as error:
        raise _failure(error.message, error.hint, code, error) from None
    except OSError as error:
        where = f" ({error.filename!a})" if error.filename else ""
        raise _failure(f"{error.strerror or error}{where}", "", code, error) from None


def _failure(message: str, hint: str, code: int, cause: BaseException) -> SandboxError:
    denied = os.geteuid() != 0 and _is_denied(cause)
    failure = SandboxError(message, hint=hint or (_USE_SUDO if denied else ""))
    failure.exit_code = code or _status(message)
    if denied and code:
        failure.exit_code = NotPermittedError.exit_code
    return failure


def _is_denied(error: BaseException | None) -> bool:
    """Returns True if the kernel denied the first operation."""
    while error is not None and not isinstance(error, PermissionError):
        error = error.__context__
    return error is not None


def _status(message: str) -> int:
    """Returns a shell's code for a program that is missing or cannot be executed."""
    if not message.startswith("exec: "):
        return FAILED
    missing = "executable file not found" in message or message.endswith("no such file or directory")
    return NOT_FOUND if missing else NOT_EXECUTABLE
