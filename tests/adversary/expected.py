# SPDX-License-Identifier: Apache-2.0
"""Attacks that still get through: expected.txt, one `TIER KERNEL CLASS NAME KIND` a line.

A test fails when an attack gets through that is not there, and when one that is there is stopped:
so the list shrinks. KERNEL is `*`, or a name of tools/vm's catalogue. `?` before the tier: a race,
which may end either way.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

from ringfence.bpf.capabilities import NodeCapabilities

__all__ = ["FILE", "is_expected", "tier_here"]

FILE = Path(__file__).resolve().parent / "expected.txt"


def tier_here() -> str:
    """Returns `lsm` where BPF-LSM decides, else `kill`."""
    return "lsm" if NodeCapabilities.detect().lsm_hooks else "kill"


def is_expected(tier: str, kernel: str, key: str) -> str:
    """Returns `yes`, `no`, or `may`: is the attack expected to get through?"""
    for line in FILE.read_text().splitlines():
        race = line.startswith("?")
        fields = line.lstrip("? ").split(" ", 2)
        if len(fields) == 3 and fields[0] == tier and fnmatch.fnmatch(kernel, fields[1]) and fields[2] == key:
            return "may" if race else "yes"
    return "no"
