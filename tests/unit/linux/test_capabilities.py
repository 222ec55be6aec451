# SPDX-License-Identifier: Apache-2.0
"""Capabilities have the kernel's names and numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence_linux.capabilities import CAPABILITIES, names

HEADER = Path("/usr/include/linux/capability.h")


@pytest.mark.skipif(not HEADER.exists(), reason="needs linux-libc-dev")
def test_capability_names_are_the_kernels() -> None:
    """Name by name, number by number."""
    found = dict(re.findall(r"^#define (CAP_[A-Z_]+)\s+(\d+)$", HEADER.read_text(), re.MULTILINE))
    assert {name: str(number) for name, number in CAPABILITIES.items()}.items() >= found.items()


def test_a_capability_without_a_name_keeps_its_number() -> None:
    """The kernel may be newer than this table."""
    assert names(1 << 21 | 1 << 60) == ("CAP_SYS_ADMIN", "CAP_60")
