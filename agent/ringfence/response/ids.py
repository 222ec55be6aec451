# SPDX-License-Identifier: Apache-2.0
"""Alert ids: unique on this node; shared by an alert's line, its log entry and the kill that follows."""

from __future__ import annotations

import itertools
import secrets

__all__ = ["AlertIds"]

_SALT = secrets.token_hex(3)  # another one each time that the agent starts


class AlertIds:
    """`SALT-KINDn`, with n counted in hexadecimal. `kind` keeps two sources apart."""

    def __init__(self, kind: str = "") -> None:
        self._prefix, self._numbers = f"{_SALT}-{kind}", itertools.count(1)

    def __call__(self) -> str:
        """The next one. From any thread."""
        return f"{self._prefix}{next(self._numbers):x}"
