# SPDX-License-Identifier: Apache-2.0
"""Standard descriptors that are closed: what is opened next would take their numbers, and go to a workload as
its standard input or output.
"""

from __future__ import annotations

import os

__all__ = ["fill_standard"]


def fill_standard() -> None:
    """Open /dev/null at each of 0, 1 and 2 that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
