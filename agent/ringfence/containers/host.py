# SPDX-License-Identifier: Apache-2.0
"""The host's root directory: the agent may run in a container itself."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["host_root"]


def host_root() -> Path:
    """Returns the root of process 1 if it is in another mount namespace, else the own root."""
    with suppress(OSError):
        if os.stat("/proc/1/ns/mnt").st_ino != os.stat("/proc/self/ns/mnt").st_ino:
            return Path("/proc/1/root")
    return Path("/")
