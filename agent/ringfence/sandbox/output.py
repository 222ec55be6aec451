# SPDX-License-Identifier: Apache-2.0
"""The output of a detached sandbox."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from ringfence.sandbox.errors import SandboxError
from ringfence.sandbox.place import find
from ringfence.sandbox.request import Roots

__all__ = ["follow"]

_INTERVAL = 0.1


def follow(roots: Roots, name: str, *, on: bool) -> Iterator[bytes]:
    """Yields its output so far; with `on`, also later output until it ends."""
    place = find(roots, name)
    if not os.path.exists(place.output):
        raise SandboxError(f"sandbox {name} was not detached: its output went to its terminal")
    with open(place.output, "rb") as file:
        while True:
            running = (
                on and place.status() != "stopped"
            )  # checked before the read, so the last output is not missed
            while part := file.read(1 << 16):
                yield part
            if not running:
                return
            time.sleep(_INTERVAL)
