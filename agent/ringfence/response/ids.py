# SPDX-License-Identifier: Apache-2.0
"""Alert ids: unique in a fleet; shared by an alert's record, its log entry and the resulting kill."""

from __future__ import annotations

import itertools
import secrets

__all__ = ["AlertIds"]

#: differs at each start of an agent: receivers drop duplicate ids and numbers start at 1, so two agents with
#: the same salt would lose each other's alerts
_SALT = secrets.token_hex(8)


class AlertIds:
    """`SALT-n` or `SALT-KIND-n`, with n counted in hexadecimal. `kind` keeps two sources apart."""

    def __init__(self, kind: str = "") -> None:
        self._prefix, self._numbers = f"{_SALT}-{kind}{'-' if kind else ''}", itertools.count(1)

    def __call__(self) -> str:
        """Returns the next id. From any thread."""
        return f"{self._prefix}{next(self._numbers):x}"
