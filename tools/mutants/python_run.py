# SPDX-License-Identifier: Apache-2.0
"""A random sample of defects in Python, each judged by the tests of its area, in a copy of the tree."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from typing import NamedTuple

from tools.mutants.python_mutants import PythonMutant, apply, mutants_of
from tools.mutants.table import ROOT
from tools.mutants.touched import Lines, read
from tools.mutants.trees import environment, tree

__all__ = ["AREAS", "Area", "run_python"]

SECONDS = 300.0  # for the tests of one defect; a hang is a failure


class Area(NamedTuple):
    """Sources, and the tests that must notice a defect in them."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]


_UNIT = "tests/unit"
_SECURITY = tuple(
    f"tests/runtime/test_{name}.py"
    for name in ("rules_of_parts", "seccomp", "landlock", "default_profile", "run_fences", "learn", "config")
)
AREAS: Mapping[str, Area] = {
    "policy": Area(("agent/ringfence/policy",), (f"{_UNIT}/policy", f"{_UNIT}/probes")),
    "wire": Area(
        ("agent/ringfence/wire.py", "agent/ringfence/abi"),
        (f"{_UNIT}/events", f"{_UNIT}/bpf", f"{_UNIT}/response", "tests/abi"),
    ),
    "response": Area(
        ("agent/ringfence/response",),
        (f"{_UNIT}/response", f"{_UNIT}/daemon", f"{_UNIT}/policy/test_pack.py", "tests/docs"),
    ),
    "containers": Area(
        ("agent/ringfence/containers",), (f"{_UNIT}/containers", f"{_UNIT}/linux", f"{_UNIT}/daemon")
    ),
    "security": Area(("runtime/ringfence_runtime/security",), _SECURITY),
}
#: files that are generated, or that are data
_LEFT_OUT = {"generated.py", "default_profile.py"}


class Judged(NamedTuple):
    """The outcome of one defect."""

    area: str
    mutant: PythonMutant
    killed: bool
    by: str
    seconds: float

    def line(self) -> str:
        """A line for the output."""
        outcome = "killed" if self.killed else "survived"
        where = f"{self.mutant.file}:{self.mutant.line}"
        return f"{outcome:9} {self.area:10} {where}: {self.mutant.what} [{self.by}]"


def sample(areas: Sequence[str], count: int, seed: int, root: Path = ROOT) -> list[tuple[str, PythonMutant]]:
    """Returns that many defects, the same number from each area where there are enough."""
    chooser = random.Random(seed)
    found: list[tuple[str, PythonMutant]] = []
    for index, area in enumerate(areas):
        files = [path for source in AREAS[area].sources for path in _files(root / source)]
        every = [mutant for path in files for mutant in mutants_of(path, root)]
        chooser.shuffle(every)
        share = (count - len(found)) // (len(areas) - index)
        found += [(area, mutant) for mutant in every[:share]]
    return found


def _files(path: Path) -> list[Path]:
    every = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [one for one in every if one.name not in _LEFT_OUT]


def _judge(root: Path, area: str, mutant: PythonMutant, lines: Lines) -> Judged:
    path = root / mutant.file
    text = path.read_text()
    touching = _touching(lines, mutant)
    path.write_text(apply(mutant, text))
    started = time.monotonic()
    try:
        status, by = _tests(root, touching or AREAS[area].tests)
    finally:
        path.write_text(text)
    return Judged(area, mutant, status != 0, by, round(time.monotonic() - started, 1))


def _touching(lines: Lines, mutant: PythonMutant) -> list[str]:
    """Returns the tests that execute the defect; none for what runs at an import."""
    mine = lines.get(mutant.file, {})
    found = {test for line in range(mutant.line, mutant.end + 1) for test in mine.get(line, ())}
    return sorted(found)


def _tests(root: Path, tests: Sequence[str], *, touched: Mapping[str, str] | None = None) -> tuple[int, str]:
    present = [test for test in tests if (root / test.partition("::")[0]).exists()]
    words = ["-q", "-p", "no:cacheprovider", "--no-header", "--tb=no", "--color=no"]
    words += ["-p", "tools.mutants.touched"] if touched else ["-x"]
    with NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(present))  # too many for a command line
        file.flush()
        argv = [sys.executable, "-m", "pytest", *words, f"@{file.name}"]
        variables = {**environment(root), **(touched or {})}
        limit = SECONDS * (4 if touched else 1)
        try:
            done = subprocess.run(
                argv, cwd=root, env=variables, capture_output=True, text=True, check=False, timeout=limit
            )
        except subprocess.TimeoutExpired:
            return 1, "did not end"
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, failed[0][:120] if failed else done.stdout.strip().rpartition("\n")[2][:120]


def run_python(options: argparse.Namespace) -> int:
    """The command: judges a sample, prints each outcome and the scores. Returns 0 if none survived."""
    areas = options.areas.split(",")
    if unknown := set(areas) - set(AREAS):
        raise ValueError(f"no area {', '.join(sorted(unknown))}: {', '.join(AREAS)}")
    chosen = sample(areas, options.sample, options.seed)
    with ExitStack() as stack:
        trees: SimpleQueue[Path] = SimpleQueue()
        for _ in range(options.jobs):
            trees.put(stack.enter_context(tree()).root)
        lines = _lines(trees, areas)
        judged = _all(chosen, trees, options.jobs, lines)
    for area in areas:
        mine = [one for one in judged if one.area == area]
        print(f"{area}: {sum(one.killed for one in mine)} of {len(mine)} killed")
    killed = sum(one.killed for one in judged)
    print(f"all: {killed} of {len(judged)} killed (seed {options.seed})")
    return 0 if killed == len(judged) else 1


def _lines(trees: SimpleQueue[Path], areas: Sequence[str]) -> dict[str, Lines]:
    """Run each area's tests without a defect. Returns the tests that execute each line, by area."""
    root, found = trees.get(), {}
    for area in areas:
        file = root / f"{area}.json"
        sources = ":".join(str(root / source) for source in AREAS[area].sources)
        touched = {"TOUCHED_SOURCES": sources, "TOUCHED_FILE": str(file)}
        _, said = _tests(root, AREAS[area].tests, touched=touched)
        if not file.exists():
            raise RuntimeError(f"the tests of {area} did not end without any defect: {said}")
        found[area] = read(file, root)
    trees.put(root)
    return found


def _all(
    chosen: Sequence[tuple[str, PythonMutant]],
    trees: SimpleQueue[Path],
    jobs: int,
    lines: Mapping[str, Lines],
) -> list[Judged]:
    def one(pair: tuple[str, PythonMutant]) -> Judged:
        root, (area, mutant) = trees.get(), pair
        try:
            judged = _judge(root, area, mutant, lines[area])
        finally:
            trees.put(root)
        print(judged.line(), flush=True)
        return judged

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, chosen))
