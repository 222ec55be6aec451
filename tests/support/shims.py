# SPDX-License-Identifier: Apache-2.0
"""Shims that a containerd of a test's own has left behind: they outlive it, and one whose task went away at a
bad moment does for ever."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

__all__ = ["end_shims"]


def end_shims(socket: str) -> None:
    """End those of the daemon that listened at this path, which is nobody else's."""
    for directory in Path("/proc").iterdir():
        if not directory.name.isdecimal():
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = (directory / "cmdline").read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and socket.encode() in words:
                os.kill(int(directory.name), signal.SIGKILL)
