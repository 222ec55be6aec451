# SPDX-License-Identifier: Apache-2.0
"""What differs between processors: columns of the table of system calls, the order of memory accesses.

The C side is probes/include/arch/. Nothing else asks which machine this is, except where an image or a
seccomp profile names it.
"""

from __future__ import annotations

import os

__all__ = ["ARCHITECTURES", "Architecture", "architecture"]


class Architecture:
    """One architecture that the probes are built for. A plain class: a start imports this module."""

    __slots__ = ("compat", "loads_in_order", "name", "native")

    def __init__(self, name: str, native: int, compat: int | None, loads_in_order: bool) -> None:
        self.name = name  # ARCH of probes/Makefile
        self.native = native  # column of numbers.NUMBERS
        self.compat = compat  # the same for 32-bit callers; None: their numbers are in no table
        self.loads_in_order = loads_in_order  # no load passes an earlier load, no store an earlier one


#: by uname -m
ARCHITECTURES = {
    "x86_64": Architecture("x86", native=0, compat=1, loads_in_order=True),
    "aarch64": Architecture("arm64", native=2, compat=None, loads_in_order=False),
}
#: of a machine that the agent does not support: the generic numbers, which newer architectures have
_OTHER = Architecture("", native=2, compat=None, loads_in_order=False)


def architecture(machine: str = "") -> Architecture:
    """Returns that of a machine (uname -m); empty: of this one."""
    return ARCHITECTURES.get(machine or os.uname().machine, _OTHER)
