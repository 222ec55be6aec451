# SPDX-License-Identifier: Apache-2.0
"""Runs tests against one compiled defect after the other, in a copy of the tree that is its own.

`python -m tools.mutants.judge PLAN RESULTS`: on this machine, or as the only command of a guest. The
plan is JSON: a list of [id, object or "", tests, seconds]. Each result is written at once, one line
of JSON, as a defect may end the machine itself.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ringfence.bpf.kernel import Kernel, KernelSettings
from ringfence.errors import KernelError
from tools.mutants.forked import Watch, forked, run_pytest

__all__ = ["BEGUN", "REFUSED", "UNCHANGED", "Verdict", "Work", "read", "write_plan"]

ROOT = Path(__file__).resolve().parents[2]
OBJECT = ROOT / "agent/ringfence/_bpf/ringfence.bpf.o"
BEGUN = "begun"
#: the id of the run without a defect: tests that fail in it judge nothing
UNCHANGED = "unchanged"
REFUSED = "refused"


class Work(NamedTuple):
    """One line of the plan. `seconds` bounds the tests."""

    id: str
    object: str
    tests: Sequence[str]
    seconds: float


class Verdict(NamedTuple):
    """`status`: pytest's exit code, or a word; `failed`: the first test that failed.

    The words: BEGUN, REFUSED (by the kernel's verifier), `timeout`, `died`.
    """

    id: str
    status: int | str
    failed: str
    ran: int
    seconds: float


def write_plan(path: Path, works: Sequence[Work]) -> None:
    """Write a plan."""
    path.write_text(json.dumps(works))


def read(path: Path) -> list[Verdict]:
    """Returns the verdicts so far; the last one of each id counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = {verdict.id: verdict for verdict in (Verdict(*json.loads(line)) for line in lines)}
    return list(found.values())


def _note(path: Path, verdict: Verdict) -> None:
    with path.open("a") as file:
        file.write(json.dumps(verdict) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _watch_loading() -> list[str]:
    """Returns a list that gets the programs which the verifier refuses from now on.

    Such a defect is none: the tests see that the program is missing, and not what it does.
    """
    refused: list[str] = []
    load = Kernel.load

    def watched(settings: KernelSettings) -> Kernel:
        try:
            kernel = load(settings)
        except KernelError as error:
            refused.append(str(error)[:500])
            raise
        refused.extend(one.program for one in kernel.skipped if "refused" in one.reason)
        return kernel

    Kernel.load = watched  # type: ignore[method-assign]
    return refused


def _tests(work: Work, unfit: Sequence[str]) -> tuple[int | str, str, int]:
    watch, refused = Watch(), _watch_loading()
    words = [*(word for test in unfit for word in ("--deselect", test))]
    words += [] if work.id == UNCHANGED else ["-x"]
    status: int | str = run_pytest([*words, "--tb=line", *work.tests], watch)
    if refused:
        status, watch.failed = REFUSED, ", ".join(refused)
    if work.id == UNCHANGED:
        watch.failed = "\n".join(dict.fromkeys(watch.every))
    return status, watch.failed, watch.ran


def _run(work: Work, unfit: Sequence[str]) -> Verdict:
    return Verdict(work.id, *forked(partial(_tests, work, unfit), work.seconds))


def main(plan: str, results: str) -> int:
    """Runs the plan. Returns 0."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    unfit: list[str] = []
    for words in json.loads(Path(plan).read_text()):
        work = Work(*words)
        _note(Path(results), Verdict(work.id, BEGUN, "", 0, 0.0))
        if work.object:
            shutil.copyfile(work.object, OBJECT)
        verdict = _run(work, unfit)
        if work.id == UNCHANGED:
            unfit = verdict.failed.split()
        _note(Path(results), verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
