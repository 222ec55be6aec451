# SPDX-License-Identifier: Apache-2.0
"""This process and its descriptors."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Iterator

__all__ = ["no_descriptors", "open_descriptors"]


def open_descriptors() -> int:
    """Returns the number of open descriptors. Garbage of earlier tests is collected first."""
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process cannot open any more descriptors.

    Garbage of earlier tests is collected first, and none meanwhile: it would give descriptors back.
    """
    gc.collect()
    gc.disable()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = os.dup(0)  # the lowest free number: all below it are in use
    os.close(used)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gc.enable()
