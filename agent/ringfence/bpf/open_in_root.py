# SPDX-License-Identifier: Apache-2.0
"""Paths as another root sees them."""

from __future__ import annotations

from ringfence.bpf import _syscalls

__all__ = ["open_in_root"]


def open_in_root(root: int, path: str) -> int:
    """A descriptor (O_PATH) of a path below the directory `root`, whose absolute links begin there, too.

    Raises OSError. openat2(2) RESOLVE_IN_ROOT; `..` does not lead out of it.
    """
    return _syscalls.open_in_root(root, path)
