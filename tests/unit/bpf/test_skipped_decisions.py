# SPDX-License-Identifier: Apache-2.0
"""Skipped decisions: missed runs of deciding programs, unless something is behind them."""

from __future__ import annotations

from ringfence.abi import Mechanism
from ringfence.bpf.objects import Program
from ringfence.bpf.skipped_decisions import skipped_decisions

PROGRAMS = [
    Program("lsm_file_open", "lsm/file_open", -1, 0),
    Program("backstop_lsm_file_open", "kprobe", -1, 0),
    Program("lsm_sb_mount", "lsm/sb_mount", -1, 0),
    Program("every_call", "tp_btf/sys_enter", -1, 0),
    Program("task_newtask", "tp_btf/task_newtask", -1, 0),
]
MISSES = {"lsm_file_open": 5, "lsm_sb_mount": 7, "every_call": 11, "task_newtask": 13}


def test_a_backstop_decides_what_is_skipped_before_it() -> None:
    """What it misses itself is undecided; so is what has no backstop."""
    everything = {program.name for program in PROGRAMS}
    counts = skipped_decisions(PROGRAMS, MISSES, everything, Mechanism.HOOK)
    assert counts == {"file_open": 0, "sb_mount": 7}
    missed = {**MISSES, "backstop_lsm_file_open": 2}
    assert skipped_decisions(PROGRAMS, missed, everything, Mechanism.HOOK)["file_open"] == 2


def test_programs_of_bpf_lsm_are_never_skipped() -> None:
    """Nor do programs at calls decide beside them."""
    attached = {"lsm_file_open", "lsm_sb_mount", "every_call", "task_newtask"}
    assert skipped_decisions(PROGRAMS, MISSES, attached, Mechanism.LSM) == {}


def test_without_hooks_the_programs_at_calls_decide() -> None:
    """The kill tier; programs that follow tasks decide nothing."""
    counts = skipped_decisions(PROGRAMS, MISSES, {"every_call", "task_newtask"}, Mechanism.LSM)
    assert counts == {"sys_enter": 11}
