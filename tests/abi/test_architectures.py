# SPDX-License-Identifier: Apache-2.0
"""Every probe compiles for every architecture: a program of one must not need registers of another."""

from __future__ import annotations

import re
import subprocess

import pytest

from ringfence_linux.architecture import ARCHITECTURES
from tests.abi.conftest import ROOT
from tests.support.force import need_program

PROBES = ROOT / "probes"
FLAGS = re.search(r"^CFLAGS := (.*)$", (PROBES / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("name", sorted(architecture.name for architecture in ARCHITECTURES.values()))
def test_every_probe_compiles(name: str) -> None:
    """With the flags of the build; nothing is generated."""
    clang = need_program("clang")
    assert FLAGS
    flags = FLAGS[1].replace("$(ARCH)", name).split()
    for source in sorted(PROBES.glob("*.bpf.c")):
        done = subprocess.run(
            [clang, *flags, "-fsyntax-only", source.name], cwd=PROBES, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{source.name} for {name}:\n{done.stderr[:2000]}"
