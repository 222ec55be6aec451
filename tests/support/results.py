# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that keeps each test's outcome in a file: `pytest --results FILE`.

One JSON object a line: `test` (node id), `outcome` (passed, failed or skipped), `seconds` (set-up, call and
tear-down), `reason` (first line of a failure) and `flaky` (tests that failed at first, which a test records
by `record_property("flaky", ...)`). tools/check.py reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Result", "read_results"]

_WORST = {"passed": 0, "skipped": 1, "failed": 2}


class Result(NamedTuple):
    """Outcome of one test. `reason` is empty unless it failed."""

    test: str
    outcome: str
    seconds: float
    reason: str
    flaky: Sequence[str] = ()


class _Recorder:
    """Joins the reports of a test's set-up, call and tear-down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: dict[str, Result] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """With xdist, called in the controller only."""
        before = self._results.get(report.nodeid, Result(report.nodeid, "passed", 0.0, ""))
        outcome = max(before.outcome, report.outcome, key=_WORST.__getitem__)
        reason = before.reason or (_first_line(report) if report.failed else "")
        flaky = [str(value) for name, value in report.user_properties if name == "flaky"]
        seconds = before.seconds + report.duration
        self._results[report.nodeid] = Result(report.nodeid, outcome, seconds, reason, flaky)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be collected is a failed test of that name."""
        if report.failed:
            self._results[report.nodeid] = Result(report.nodeid, "failed", 0.0, _first_line(report))

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        lines = [json.dumps(result._asdict()) + "\n" for result in self._results.values()]
        self._path.write_text("".join(lines))


def _first_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else report.longreprtext
    return next((line.strip()[:300] for line in text.splitlines() if line.strip()), "")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--results FILE`."""
    parser.addoption("--results", type=Path, help="file for the outcome of each test, JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    """Only the process that started the run writes: workers of xdist have a `workerinput`."""
    path = config.getoption("--results")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Recorder(path))


def read_results(path: Path) -> Iterator[Result]:
    """The results of a file, in the order in which the tests ended."""
    for line in path.read_text().splitlines():
        yield Result(**json.loads(line))
