# SPDX-License-Identifier: Apache-2.0
"""`make test`: runs the parts of the test suite side by side, and failed tests once more.

1. Tests that may run beside others, in several pytest workers. Each worker has its own prefix for the names
   of cgroups, so that the agents of one do not act on the containers of another. Guests run at the same
   time where virtual machines are forced.
2. Each failed test, once more and by itself (those of guests in another boot: `once_more` of
   tools/vm/suite.py). If it passes then, it is flaky: the run passes, and the last table names it. If it
   fails again, the run fails.

The last line is the sum of all: `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.force import forced
from tests.support.results import Result, read_results
from tools.vm.suite import MOST_RERUNS

ROOT = Path(__file__).resolve().parents[1]
#: Most tests wait for something most of the time, so there are more workers than processors.
WORKERS = 2 * (os.cpu_count() or 1)


class Part(NamedTuple):
    """One pytest process: a name for people, and its arguments."""

    name: str
    arguments: list[str]


def main() -> int:
    """Run all parts; 0 where no test failed twice."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ringfence-check-") as directory:
        run = Run(Path(directory))
        began = time.monotonic()
        run.together(_beside(options))
        run.again()
        return run.report(time.monotonic() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.check", description=__doc__)
    parser.add_argument("-j", "--jobs", type=int, default=WORKERS, help=f"pytest workers ({WORKERS})")
    parser.add_argument("--guests", action="store_true", default=forced("vm"), help="boot the guests, too")
    parser.add_argument("--all", action="store_true", help="tests that are marked `long`, too")
    parser.add_argument("arguments", nargs="*", help="for pytest; after --")
    return parser.parse_args()


def _beside(options: argparse.Namespace) -> list[Part]:
    spread = ["-n", str(options.jobs), "--dist", "loadfile"]
    chosen = "not vm and not cluster and not package" + ("" if options.all else " and not long")
    parts = [Part("host", [*spread, "-m", chosen, *options.arguments])]
    if options.guests:
        parts.append(Part("guests", ["-m", "vm", "tests/vm"]))
    return parts


class Run:
    """The parts of one run, and their results."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._results: dict[str, Result] = {}
        self._flaky: list[str] = []
        self._broken: list[str] = []

    def together(self, parts: Sequence[Part]) -> None:
        """Run parts at the same time. Their output is printed whole, one part after the other."""
        running = [(part, *self._start(part)) for part in parts]
        for part, process, log in running:
            _follow(process, log, f"== {part.name} ==")
            self._take(part, process.returncode)

    def _start(self, part: Part) -> tuple[subprocess.Popen[bytes], Path]:
        log = self._directory / f"{part.name}.log"
        settings = ["-c", str(ROOT / "pyproject.toml"), "--results", str(self._file(part))]
        argv = [sys.executable, "-m", "pytest", *settings, *part.arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        return process, log

    def _file(self, part: Part) -> Path:
        return self._directory / f"{part.name}.jsonl"

    def _take(self, part: Part, status: int) -> None:
        """Add the results of a part that has ended. pytest's status 5 means: no test was selected."""
        file = self._file(part)
        results = list(read_results(file)) if file.exists() else []
        self._results |= {result.test: result for result in results}
        self._flaky += [line for result in results for line in result.flaky]
        if status not in (0, 5) and not any(result.outcome == "failed" for result in results):
            self._broken.append(f"{part.name}: pytest ended with status {status}")

    def again(self) -> None:
        """Run each failed test once more, by itself. Guests have done that already."""
        failed = [
            result
            for result in self._results.values()
            if result.outcome == "failed" and not result.test.startswith("tests/vm/")
        ]
        if len(failed) > MOST_RERUNS:
            print(f"{len(failed)} tests failed: none is run once more")
            return
        for number, first in enumerate(failed):
            self.together([Part(f"again-{number}", [first.test])])
            if self._results[first.test].outcome == "passed":
                self._flaky.append(f"{first.test}: {first.reason}")

    def report(self, seconds: float) -> int:
        """Print the tables and the last line; the exit status."""
        failed = [result for result in self._results.values() if result.outcome == "failed"]
        for title, lines in (
            ("failed twice", [f"{result.test}: {result.reason}" for result in failed]),
            ("broken", self._broken),
            ("flaky: failed, and passed by itself", self._flaky),
        ):
            if lines:
                print(f"\n{title}:", *lines, sep="\n  ")
        count = {
            outcome: sum(result.outcome == outcome for result in self._results.values())
            for outcome in ("passed", "failed", "skipped")
        }
        print(f"\nin {seconds:.0f} s")
        bad = count["failed"] + len(self._broken)
        print(f"{count['passed']} passed, {bad} failed, {count['skipped']} skipped", flush=True)
        return 1 if bad or not count["passed"] else 0


def _follow(process: subprocess.Popen[bytes], log: Path, title: str) -> None:
    """Copy a part's output to ours until it ends."""
    print(title, flush=True)
    with log.open("rb") as output:
        while True:
            ended = process.poll() is not None
            data = output.read()
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
            if ended:
                return
            time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
