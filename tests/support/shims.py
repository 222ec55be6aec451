# SPDX-License-Identifier: Apache-2.0
"""Shims that a private containerd has left: they outlive it, some of them for ever.

A shim never ends if its task ended at a bad moment.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["end_shims"]


def end_shims(socket: str) -> None:
    """End the shims of the daemon that listened at this path, which no other daemon uses."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has just ended
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and socket.encode() in words:
                os.kill(int(directory.name), signal.SIGKILL)
