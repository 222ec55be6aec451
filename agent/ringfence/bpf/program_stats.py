# SPDX-License-Identifier: Apache-2.0
"""The kernel's statistics of a loaded program."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ringfence.bpf import _libbpf
from ringfence.bpf.objects import Program

__all__ = ["ProgramStat", "stat_of"]


class ProgramStat(NamedTuple):
    """Runs and run time of a program while statistics were enabled. See `Kernel.keep_statistics`.

    `misses`: runs that were skipped because it already ran on that CPU; always counted.
    """

    name: str
    run_count: int
    run_time_ns: int
    misses: int = 0


def stat_of(program: Program) -> ProgramStat:
    """Reads struct bpf_prog_info.

    run_time_ns, run_cnt (9a8cca2b0d6c, 5.1), recursion_misses (9ed9e9ba2337, 5.12) at 192.
    """
    time_ns, count, misses = struct.unpack_from("=3Q", _libbpf.info(program.fd, 216), 192)
    return ProgramStat(program.name, count, time_ns, misses)
