# SPDX-License-Identifier: Apache-2.0
"""Prints an error: one line, a hint, and the exit code."""

from __future__ import annotations

from ringfence_runtime import log
from ringfence_runtime.errors import Error

__all__ = ["described", "report"]


def described(error: OSError) -> str:
    """Returns what the kernel answered, and for which file."""
    return f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)


def report(error: Error | OSError) -> int:
    """Prints the error and returns the exit code."""
    if isinstance(error, Error):
        log.error(error.message, error.hint)
        return error.exit_code
    if not isinstance(error, BrokenPipeError):
        log.error(described(error))
    return 1
