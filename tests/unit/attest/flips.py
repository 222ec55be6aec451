# SPDX-License-Identifier: Apache-2.0
"""Single-bit flips: a sample in an ordinary run, every bit under RINGFENCE_FUZZ=1."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from ringfence.attest.refusal import RefusedError

_EVERY = 1 if os.environ.get("RINGFENCE_FUZZ") else 61  # a prime: each bit of a byte is in the sample


def flips(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the number of a bit, and the data with that bit inverted."""
    for bit in range(0, len(data) * 8, _EVERY):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bit, bytes(changed)


def accepted(data: bytes, verify: Callable[[bytes], object]) -> list[int]:
    """Returns the bits whose inversion was not refused; another exception than a refusal is raised."""
    kept = []
    for bit, changed in flips(data):
        try:
            verify(changed)
        except RefusedError:
            continue
        kept.append(bit)
    return kept
