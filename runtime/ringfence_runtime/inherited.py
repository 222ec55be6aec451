# SPDX-License-Identifier: Apache-2.0
"""What a caller may leave us that would make a start fail: closed standard descriptors, an ignored
SIGCHLD."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

__all__ = ["mend_inherited"]


def mend_inherited() -> None:
    """Open /dev/null at each of 0, 1 and 2 that is closed: what is opened next would take their numbers, and
    go to a workload as its standard input or output. And let children be waited for: where SIGCHLD is
    ignored, the kernel keeps no status of them.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
