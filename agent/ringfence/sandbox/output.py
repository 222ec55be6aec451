# SPDX-License-Identifier: Apache-2.0
"""The output of a detached sandbox."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import BinaryIO

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.place import find
from ringfence.sandbox.request import Roots

__all__ = ["follow"]

_INTERVAL = 0.1
_BLOCK = 1 << 16


def _begin_of_last(file: BinaryIO, lines: int) -> int:
    """Returns the offset of the last `lines` lines. The last one may lack its end."""
    end = at = file.seek(0, os.SEEK_END)
    if not lines:
        return end
    left = lines
    while at:
        start = max(0, at - _BLOCK)
        file.seek(start)
        block = file.read(at - start)
        index = len(block)
        while (index := block.rfind(b"\n", 0, index)) >= 0:
            if start + index + 1 < end:
                left -= 1
            if not left:
                return start + index + 1
        at = start
    return 0


def follow(roots: Roots, name: str, *, on: bool, tail: int | None = None) -> Iterator[bytes]:
    """Yields its output so far, or its last `tail` lines; with `on`, also later output until it ends."""
    place = find(roots, name)
    if not os.path.exists(place.output):
        raise SandboxError(f"sandbox {name} was not detached: its output went to its terminal")
    with open(place.output, "rb") as file:
        if tail is not None:
            file.seek(_begin_of_last(file, tail))
        while True:
            running = (
                on and place.status() != "stopped"
            )  # checked before the read, so the last output is not missed
            while part := file.read(_BLOCK):
                yield part
            if not running:
                return
            time.sleep(_INTERVAL)
