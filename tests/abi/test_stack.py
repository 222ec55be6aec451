# SPDX-License-Identifier: Apache-2.0
"""No program needs more stack than the verifier allows.

Many kernels refuse LSM programs anyway, so otherwise these are only tested in virtual machines.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ringfence import compiled
from tests.abi.stack import depths
from tests.support import force

OBJECT = compiled.directory() / "ringfence.bpf.o"
MAX_BPF_STACK = 512  # include/linux/filter.h
SOURCE = """
#define HELD(array) __asm__ volatile("" : : "r"(array) : "memory")
__attribute__((noinline)) int inner(long x)
{
	char room[INNER];

	HELD(room);
	return x + 1;
}

__attribute__((section("lsm/x"))) int outer(long *x)
{
	char room[OUTER];

	HELD(room);
	return inner(*x);
}
"""


def test_no_chain_of_calls_exceeds_the_stack() -> None:
    """Each frame rounded up to 32 bytes."""
    if not OBJECT.exists():
        force.missing("probes", "the probes are not built: make build")
    found = depths(OBJECT)
    assert len(found) > 50
    assert {name: chain for name, (depth, chain) in found.items() if depth > MAX_BPF_STACK} == {}


@pytest.mark.needs("clang")
@pytest.mark.parametrize(("outer", "inner", "expected"), [(8, 8, 64), (200, 300, 224 + 320), (33, 1, 96)])
def test_frames_are_counted(tmp_path: Path, outer: int, inner: int, expected: int) -> None:
    """From the compiler's layout of arrays on the stack."""
    source, made = tmp_path / "x.c", tmp_path / "x.o"
    source.write_text(SOURCE.replace("INNER", str(inner)).replace("OUTER", str(outer)))
    argv = ["clang", "-O2", "-target", "bpf", "-mcpu=v3", "-c", str(source), "-o", str(made)]
    subprocess.run(argv, check=True)
    assert depths(made)["outer"][0] == expected
