# SPDX-License-Identifier: Apache-2.0
"""Where the host's files are: the agent may be in a container itself."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["host_root"]


def host_root() -> Path:
    """The root of the host's first process, where that is not ours; else ours."""
    with suppress(OSError):
        if os.stat("/proc/1/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino:
            return Path("/proc/1/root")
    return Path("/")
