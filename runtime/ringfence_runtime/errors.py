# SPDX-License-Identifier: Apache-2.0
"""The runtime's errors. Only the command line prints them and sets an exit code; a traceback is a bug."""

from __future__ import annotations

__all__ = ["Error", "NotFoundError", "SpecError", "StateError", "UsageError"]


class Error(Exception):
    """A failure caused by the user, the host or the bundle; `hint` is a remedy."""

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
    """The container's state does not permit this."""


class NotFoundError(Error):
    """No container has this name."""


class UsageError(Error):
    """The command line is wrong."""
