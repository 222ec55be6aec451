# SPDX-License-Identifier: Apache-2.0
"""Suites of several kernels at the same time, each by a process of its own: a guest keeps about one CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TextIO

from tools.vm.suite import ROOT, Report, report_file

__all__ = ["JOBS", "run_side_by_side"]

JOBS = min(2, os.cpu_count() or 1)


class _Suite:
    """`python -m tools.vm test -k NAME WORDS` as a child process, its lines relayed as they come."""

    def __init__(self, name: str, words: Sequence[str], echo: TextIO | None) -> None:
        self.name, self._echo = name, echo
        self._last: deque[str] = deque(maxlen=5)
        report_file(name).unlink(missing_ok=True)
        prefix = ["setpriv", "--pdeathsig", "TERM", "--"]
        argv = [*prefix, sys.executable, "-m", "tools.vm", "test", "-k", name, *words]
        self.process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._relay, daemon=True)
        self._reader.start()

    def _relay(self) -> None:
        assert self.process.stdout is not None
        for line in filter(None, map(str.rstrip, self.process.stdout)):
            self._last.append(line)
            if self._echo is not None:
                print(f"{self.name}: {line}", file=self._echo, flush=True)

    def end(self) -> Report:
        """The report; one that says what was said last where there is none."""
        self.process.terminate()
        self.process.wait()
        self._reader.join(10)
        try:
            return Report(**json.loads(report_file(self.name).read_text()))
        except FileNotFoundError:
            said = " / ".join(self._last)
            return Report(self.name, self.name, 0, [], [], 0.0, f"no report was left: {said}")


def run_side_by_side(
    names: Sequence[str], words: Sequence[str] = (), *, jobs: int = JOBS, echo: TextIO | None = None
) -> list[Report]:
    """The suite on each kernel, `jobs` at once; reports in the order of the names.

    Lines of the guests go to `echo`, each with the kernel's name before it.
    """
    waiting, running, reports = list(names), list[_Suite](), dict[str, Report]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Suite(waiting.pop(0), words, echo))
            for suite in [suite for suite in running if suite.process.poll() is not None]:
                running.remove(suite)
                reports[suite.name] = suite.end()
            time.sleep(0.2)
    finally:
        for suite in running:
            suite.end()
    return [reports[name] for name in names]
