# SPDX-License-Identifier: Apache-2.0
"""Applies the defects of the table one by one, and runs the tests named for each, here or in a guest."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tools.mutants import judge
from tools.mutants.judge import BEGUN, REFUSED, UNCHANGED, Verdict, Work
from tools.mutants.table import HOST, Mutant
from tools.mutants.trees import Broken, Tree, environment, tree
from tools.vm.catalogue import prepared
from tools.vm.machine import Job, run
from tools.vm.suite import FORCED, guest_environment

__all__ = ["KILLED", "SURVIVED", "Result", "run_table", "score", "summary"]

KILLED, SURVIVED, STALE, INVALID = "killed", "survived", "stale", "invalid"
HOST_SECONDS = 240.0  # for the tests of one defect; a guest needs longer
GUEST_SECONDS = 420.0
#: a guest that ended by a defect is booted again for the rest, at most this often
BOOTS = 8
MEMORY = 3072  # MiB


class Result(NamedTuple):
    """The outcome of one defect. `by`: the test that noticed it, or what went wrong."""

    mutant: Mutant
    outcome: str
    by: str
    seconds: float = 0.0

    def line(self) -> str:
        """A line for the output."""
        return f"{self.outcome:9} {self.mutant.id:24} {self.mutant.where:6} {self.by}"


def run_table(mutants: Sequence[Mutant]) -> Iterator[Result]:
    """Judge these defects, in one copy of the tree. Raises RuntimeError if no test runs."""
    with tree() as copy:
        copy.build()
        _warm(copy, sorted({test for mutant in mutants for test in mutant.tests}))
        for where, group in groupby(sorted(mutants, key=lambda one: one.where), lambda one: one.where):
            yield from _judge(copy, where, list(group))


def _judge(copy: Tree, where: str, mutants: Sequence[Mutant]) -> Iterator[Result]:
    built: list[Mutant] = []
    for mutant in mutants:
        try:
            copy.build_with(mutant)
            built.append(mutant)
        except ValueError as error:
            yield Result(mutant, STALE, str(error))
        except Broken as error:
            yield Result(mutant, INVALID, f"does not compile: {str(error).splitlines()[0]}")
    if not built:
        return
    verdicts = _on_host(copy, built) if where == HOST else _in_guest(copy, where, built)
    known = {mutant.id: mutant for mutant in built}
    for verdict in verdicts:
        if verdict.id == UNCHANGED:
            _report_failing_tests(verdict)
        else:
            yield _result(known[verdict.id], verdict)


def _report_failing_tests(verdict: Verdict) -> None:
    """They are left out of the judgement. Raises RuntimeError if no test ran."""
    if not verdict.ran:
        raise RuntimeError(f"without any defect no test ran: {verdict.status}")
    for test in verdict.failed.split("\n") if verdict.failed else ():
        print(f"fails without any defect, and judges nothing: {test}", file=sys.stderr)


def _result(mutant: Mutant, verdict: Verdict) -> Result:
    if verdict.status == REFUSED:
        return Result(mutant, INVALID, f"does not load: {verdict.failed}", verdict.seconds)
    if verdict.status == 1:
        return Result(mutant, KILLED, verdict.failed, verdict.seconds)
    if verdict.status in ("timeout", "died", BEGUN):
        return Result(mutant, KILLED, f"no end: {verdict.status}", verdict.seconds)
    if verdict.status == 0 and verdict.ran:
        return Result(mutant, SURVIVED, f"{verdict.ran} tests passed", verdict.seconds)
    return Result(mutant, INVALID, f"status {verdict.status}, {verdict.ran} tests ran", verdict.seconds)


def _warm(copy: Tree, tests: Sequence[str]) -> None:
    """Compile what is imported: a guest would do it in each process, at its own speed."""
    known = {**environment(copy.root), "PYTHONDONTWRITEBYTECODE": ""}
    for argv in (["compileall", "-q", "."], ["pytest", "-q", "--collect-only", *tests]):
        subprocess.run(
            [sys.executable, "-m", *argv], cwd=copy.root, env=known, check=False, stdout=subprocess.DEVNULL
        )


def _plan(copy: Tree, mutants: Sequence[Mutant], seconds: float, *, first: bool) -> list[Work]:
    every = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    works = [Work(one.id, str(copy.objects / f"{one.id}.o"), one.tests, seconds) for one in mutants]
    unchanged = Work(UNCHANGED, str(copy.objects / f"{UNCHANGED}.o"), every, seconds * 10)
    return [unchanged, *works] if first else works


def _command(copy: Tree, results: Path) -> list[str]:
    return [sys.executable, "-m", "tools.mutants.judge", str(copy.root / "plan.json"), str(results)]


def _on_host(copy: Tree, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    results = copy.root / "results.jsonl"
    judge.write_plan(copy.root / "plan.json", _plan(copy, mutants, HOST_SECONDS, first=True))
    argv, known = _command(copy, results), environment(copy.root)
    reported = 0
    with subprocess.Popen(argv, cwd=copy.root, env=known, stdout=subprocess.DEVNULL) as process:
        ended = False
        try:
            while not ended:
                ended = process.poll() is not None
                done = [one for one in judge.read(results) if one.status != BEGUN or ended]
                yield from done[reported:]
                reported = len(done)
                time.sleep(0.2)
        finally:
            process.terminate()


def _in_guest(copy: Tree, where: str, mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    kernel = prepared(where)
    if kernel is None:
        raise RuntimeError(f"no kernel {where} in the cache: make vm-fetch")
    shared = copy.root / "shared"
    shared.mkdir(exist_ok=True)
    results = shared / f"{where}.jsonl"
    left, reported = list(mutants), 0
    for boot in range(BOOTS):
        works = _plan(copy, left, GUEST_SECONDS, first=not boot)
        judge.write_plan(copy.root / "plan.json", works)
        variables = {
            **guest_environment(kernel),
            **{key: environment(copy.root)[key] for key in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")},
            "RINGFENCE_FORCE": FORCED,
        }
        seconds = 120 + sum(work.seconds for work in works)
        run(kernel, Job(_command(copy, results), copy.root, variables, [shared], seconds, MEMORY))
        verdicts = judge.read(results)
        if not verdicts:
            raise RuntimeError(f"the guest {where} left no results")
        yield from verdicts[reported:]
        reported, done = len(verdicts), {verdict.id for verdict in verdicts}
        left = [mutant for mutant in left if mutant.id not in done]
        if not left:
            return


def score(results: Sequence[Result]) -> tuple[int, int]:
    """Returns (killed, killed + survived)."""
    killed = sum(result.outcome == KILLED for result in results)
    return killed, killed + sum(result.outcome == SURVIVED for result in results)


def summary(results: Sequence[Result]) -> str:
    """Returns a table in Markdown: killed and survived by file, then what survived."""
    lines = ["| file | defects | killed | survived | other |", "|---|---|---|---|---|"]
    for file, group in groupby(sorted(results, key=lambda one: one.mutant.file), lambda one: one.mutant.file):
        mine = list(group)
        killed, judged = score(mine)
        lines.append(f"| `{file}` | {len(mine)} | {killed} | {judged - killed} | {len(mine) - judged} |")
    killed, judged = score(results)
    lines.append(f"| all | {len(results)} | {killed} | {judged - killed} | {len(results) - judged} |")
    rest = [result for result in results if result.outcome != KILLED]
    lines += ["", *(f"- {one.mutant.id} ({one.outcome}): {one.mutant.why}. {one.by}" for one in rest)]
    return "\n".join(lines) + "\n"
