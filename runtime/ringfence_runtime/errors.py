# SPDX-License-Identifier: Apache-2.0
"""The errors of the runtime. Only the command line turns one into text and an exit code; a traceback means
a bug.
"""

from __future__ import annotations

__all__ = ["Error", "NotFoundError", "SpecError", "StateError", "UsageError"]


class Error(Exception):
    """Something that the user, the host or the bundle did not allow; `hint` says what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(Error):
    """The configuration is wrong at `path`, a JSON path such as `process.capabilities.bounding[3]`."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"config: {path}: {what}" if path else f"config: {what}")
        self.path = path
        self.what = what


class StateError(Error):
    """The container is not in a state in which this can be done."""


class NotFoundError(Error):
    """There is no container of this name."""


class UsageError(Error):
    """The command line is wrong."""
