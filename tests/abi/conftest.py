# SPDX-License-Identifier: Apache-2.0
"""The BTF that the tests of this directory compare with."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.abi.btf import Btf
from tests.support import force

ROOT = Path(__file__).resolve().parents[2]
OBJECT = ROOT / "agent" / "ringfence" / "_bpf" / "abi_check.bpf.o"


def bpftool() -> str:
    """The path of the program, wherever the distribution installs it."""
    found = subprocess.run([ROOT / "tools" / "find-bpftool"], capture_output=True, text=True).stdout.strip()
    return shutil.which(found or "bpftool") or force.need_program("bpftool")


@pytest.fixture(scope="session")
def btf() -> Btf:
    """The BTF of abi_check.bpf.o, which names every shared struct and enum."""
    if not OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")
    return Btf.read(OBJECT, bpftool())
