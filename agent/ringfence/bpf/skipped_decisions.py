# SPDX-License-Identifier: Apache-2.0
"""Decisions that the kernel skipped: runs of deciding programs that it missed, with nothing behind them.

A kernel that preempts itself skips a tracing program that was preempted on that CPU
(docs/reference/kernel-compat.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from ringfence.abi import Mechanism
from ringfence.bpf.lsm import backstop_of, hook_program
from ringfence.bpf.objects import Program

__all__ = ["skipped_decisions"]


def skipped_decisions(
    programs: Iterable[Program],
    misses: Mapping[str, int],
    attached: Collection[str],
    mechanism: Mechanism,
) -> dict[str, int]:
    """Returns hook or system-call place -> calls that no program of it decided.

    `misses`: program -> skipped runs; `attached`: names of attached programs; `mechanism`: of the hooks.
    LSM programs are never skipped. The programs at calls decide only where there are no hooks.
    """
    sections = {program.name: program.section for program in programs}
    hooked = any(sections[name].startswith("lsm/") for name in attached if name in sections)
    found: Counter[str] = Counter()
    for name in attached:
        section = sections.get(name, "")
        if section.startswith("lsm/"):
            decides = mechanism is Mechanism.HOOK and backstop_of(name) not in attached
        elif hook_program(name) != name:
            decides, section = True, sections.get(hook_program(name), section)
        else:
            decides = not hooked and "/sys_" in section
        if decides:
            found[section.rpartition("/")[2]] += misses.get(name, 0)
    return dict(found)
