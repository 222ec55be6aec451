# SPDX-License-Identifier: Apache-2.0
"""The objects that the tests of this directory read."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.compiled import directory
from tests.support import force

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def compiled() -> None:
    """The compiled probes, and what reads their BTF."""
    for name in ("abi_check", "ringfence"):
        if not (directory() / f"{name}.bpf.o").exists():
            force.missing("probes", "the probes are not built: make build")
    force.need_program("bpftool")
