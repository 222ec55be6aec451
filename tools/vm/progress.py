# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin for guests: prints each failure immediately, and the time of each file at the end.

A guest can run out of time, which loses pytest's final output.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

__all__ = ["Progress"]


class Progress:
    """Writes to the terminal, which is the guest's console."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seconds: dict[str, float] = defaultdict(float)

    def _write(self, text: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write(text)
            reporter.flush()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Says that the machine has booted: the first test's agent may take longer than its silence may."""
        self._write(f"{len(session.items)} tests\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        self._seconds[report.nodeid.partition("::")[0]] += report.duration
        if report.failed:
            self._write(f"\n-- {report.nodeid} ({report.when})\n{report.longreprtext}\n")

    def pytest_terminal_summary(self) -> None:
        """Files, the slowest first."""
        for file, seconds in sorted(self._seconds.items(), key=lambda item: -item[1]):
            self._write(f"{seconds:7.0f} s {file}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Called by pytest."""
    config.pluginmanager.register(Progress(config), "ringfence-progress")
