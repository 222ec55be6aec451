# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts of a loaded program."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ringfence.bpf import _libbpf
from ringfence.bpf.objects import Program

__all__ = ["ProgramStat", "stat_of"]


class ProgramStat(NamedTuple):
    """How often a program ran and how long, while somebody kept statistics. See `Kernel.keep_statistics`.

    `misses`: times that it was not run, as it ran on that CPU already; always counted.
    """

    name: str
    run_count: int
    run_time_ns: int
    misses: int = 0


def stat_of(program: Program) -> ProgramStat:
    """struct bpf_prog_info: run_time_ns, run_cnt (9a8cca2b0d6c, 5.1), recursion_misses (9ed9e9ba2337, 5.12)
    at 192."""
    time_ns, count, misses = struct.unpack_from("=3Q", _libbpf.info(program.fd, 216), 192)
    return ProgramStat(program.name, count, time_ns, misses)
