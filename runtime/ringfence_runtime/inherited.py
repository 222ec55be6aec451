# SPDX-License-Identifier: Apache-2.0
"""Repairs inherited state that would make a start fail: closed standard descriptors, ignored SIGCHLD."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os

__all__ = ["mend_inherited"]


def mend_inherited() -> None:
    """Opens /dev/null at closed descriptors 0, 1 and 2, and resets an ignored SIGCHLD.

    Otherwise the next opened files would become a workload's standard input or output. With SIGCHLD
    ignored, the kernel keeps no exit status of children.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
