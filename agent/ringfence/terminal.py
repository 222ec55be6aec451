# SPDX-License-Identifier: Apache-2.0
"""Colour on terminals: where it is wanted (see https://no-color.org)."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ["colour_wanted", "shows_colour"]


def colour_wanted() -> bool:
    """Returns True if a terminal of this process may be given colours."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shows_colour(stream: TextIO) -> bool:
    """Returns True if the stream is a terminal, and may be given colours."""
    return colour_wanted() and stream.isatty()
