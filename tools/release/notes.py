# SPDX-License-Identifier: Apache-2.0
"""Release notes: the section of a version in CHANGELOG.md."""

from __future__ import annotations

import re

__all__ = ["section"]


def section(changelog: str, version: str) -> str:
    """Returns the text of the section, without its heading. KeyError: there is none, or it is empty."""
    heading = re.compile(rf"^## \[{re.escape(version)}\].*$", re.M)
    found = heading.search(changelog)
    text = re.split(r"^## \[", changelog[found.end() :], maxsplit=1, flags=re.M)[0].strip() if found else ""
    if not text:
        raise KeyError(version)
    return text + "\n"
