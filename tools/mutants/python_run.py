# SPDX-License-Identifier: Apache-2.0
"""A random sample of defects in Python, each judged by the tests of its area, in a copy of the tree."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from typing import NamedTuple

import pytest

from tools.mutants.forked import Outcome
from tools.mutants.python_mutants import PythonMutant, apply, mutants_of
from tools.mutants.server import Server
from tools.mutants.table import ROOT
from tools.mutants.touched import IMPORT, Lines, read
from tools.mutants.trees import environment, tree

__all__ = ["AREAS", "Area", "run_python"]

SECONDS = 300.0  # for the tests of one defect; a hang is a failure


class Area(NamedTuple):
    """Sources, and the tests that must notice a defect in them.

    `programs`: the tests start programs, and which lines these execute is not known.
    """

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    programs: bool = False


_UNIT = "tests/unit"
_SECURITY = tuple(
    f"tests/runtime/test_{name}.py"
    for name in (
        "rules_of_parts",
        "seccomp",
        "landlock",
        "default_profile",
        "run_fences",
        "learn",
        "config",
        "security_parts",
    )
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
    "security": Area(("runtime/ringfence_runtime/security",), _SECURITY, programs=True),
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


def _files(path: Path, left_out: Container[str] = _LEFT_OUT) -> list[Path]:
    every = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [one for one in every if one.name not in left_out]


def _judge(server: Server, area: str, mutant: PythonMutant, lines: Lines) -> Judged:
    tests = _touching(lines, mutant, AREAS[area])
    if not tests:
        return Judged(area, mutant, False, "no test executes it", 0.0)
    path = server.root / mutant.file
    text, before = path.read_text(), path.stat()
    path.write_text(apply(mutant, text))
    try:
        outcome = _tests(server, ["-x"], tests, SECONDS)
    finally:
        path.write_text(text)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # its bytecode is valid again
    killed = outcome.status not in (int(pytest.ExitCode.OK), int(pytest.ExitCode.NO_TESTS_COLLECTED))
    by = (outcome.failed or str(outcome.status)) if killed else f"{outcome.ran} tests passed"
    return Judged(area, mutant, killed, by[:120], outcome.seconds)


def _touching(lines: Lines, mutant: PythonMutant, area: Area) -> list[str]:
    """Returns the tests that execute the defect; all of the area if it runs at an import, or in a program."""
    mine = lines.get(mutant.file, {})
    first, last = mutant.lines
    found = {test for line in range(first, last + 1) for test in mine.get(line, ())}
    return list(area.tests) if IMPORT in found or (area.programs and not found) else sorted(found)


def _tests(server: Server, words: Sequence[str], tests: Sequence[str], seconds: float) -> Outcome:
    with NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(tests))  # too many for a command line
        file.flush()
        return server.run([*words, f"@{file.name}"], seconds)


def run_python(options: argparse.Namespace) -> int:
    """The command: judges a sample, prints each outcome and the scores. Returns 0 if none survived."""
    areas = options.areas.split(",")
    if unknown := set(areas) - set(AREAS):
        raise ValueError(f"no area {', '.join(sorted(unknown))}: {', '.join(AREAS)}")
    chosen = sample(areas, options.sample, options.seed)
    with ExitStack() as stack:
        servers: SimpleQueue[Server] = SimpleQueue()
        for _ in range(options.jobs):
            root = stack.enter_context(tree()).root
            servers.put(stack.enter_context(closing(Server(root, environment(root)))))
        judged = [
            one
            for area in areas
            for one in _all(area, [mutant for of, mutant in chosen if of == area], servers, options.jobs)
        ]
    for area in areas:
        mine = [one for one in judged if one.area == area]
        print(f"{area}: {sum(one.killed for one in mine)} of {len(mine)} killed")
    killed = sum(one.killed for one in judged)
    print(f"all: {killed} of {len(judged)} killed (seed {options.seed})")
    return 0 if killed == len(judged) else 1


def _lines(server: Server, area: str) -> Lines:
    """Returns the tests that execute each line of an area, by a run without a defect.

    It is kept as long as the area's sources and tests stay as they are.
    """
    kept = ROOT / "build/mutants-lines" / f"{area}-{_digest(server.root, AREAS[area])}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(_run_whole(server, area)))
    return {file: {int(line): tests for line, tests in lines.items()}
            for file, lines in json.loads(kept.read_text()).items()}  # fmt: skip


def _digest(root: Path, area: Area) -> str:
    places = [root / place for place in (*area.sources, *area.tests, "tests/support", "tests/conftest.py")]
    found = hashlib.sha256()
    for path in sorted(path for place in places for path in _files(place, left_out=())):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _run_whole(server: Server, area: str) -> Lines:
    file = server.root / f"{area}.json"
    sources = ":".join(str(server.root / source) for source in AREAS[area].sources)
    words = ["-p", "tools.mutants.touched", f"--touched-sources={sources}", f"--touched-file={file}"]
    outcome = _tests(server, words, AREAS[area].tests, 10 * SECONDS)
    if not file.exists() or outcome.status not in (0, 1):
        raise RuntimeError(f"the tests of {area} do not run without any defect: {outcome.failed}")
    print(f"{area}: {outcome.ran} tests without a defect, {outcome.seconds} s", flush=True)
    return read(file, server.root)


def _all(area: str, mutants: Sequence[PythonMutant], servers: SimpleQueue[Server], jobs: int) -> list[Judged]:
    first = servers.get()
    lines = _lines(first, area)
    servers.put(first)

    def one(mutant: PythonMutant) -> Judged:
        server = servers.get()
        try:
            judged = _judge(server, area, mutant, lines)
        finally:
            servers.put(server)
        print(judged.line(), flush=True)
        return judged

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, mutants))
