# SPDX-License-Identifier: Apache-2.0
"""Runs pytest in a child of this process, with a bound."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

__all__ = ["Outcome", "Watch", "forked", "run_pytest"]


class Outcome(NamedTuple):
    """`status`: pytest's exit code, or a word; `failed`: the first test that failed.

    The words: `timeout`, `died`.
    """

    status: int | str
    failed: str
    ran: int
    seconds: float


class Watch:
    """A pytest plugin: counts the tests that ran, and keeps the first failure."""

    def __init__(self) -> None:
        self.ran, self.failed = 0, ""
        self.every: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note one phase of a test."""
        self.ran += report.when == "call" and not report.skipped
        if report.failed and not self.failed:
            self.failed = report.nodeid
        if report.failed:
            self.every.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that cannot be imported."""
        if report.failed and not self.failed:
            self.failed = f"{report.nodeid}: {report.longrepr}"[:500]


def run_pytest(words: Sequence[str], watch: Watch) -> int:
    """Runs pytest in this process. Returns its exit code."""
    usual = ["-q", "-p", "no:cacheprovider", "--no-header", "--color=no"]
    return int(pytest.main([*usual, *words], plugins=[watch]))


def forked(child: Callable[[], tuple[int | str, str, int]], seconds: float) -> Outcome:
    """Calls a function in a child that is ended after so many seconds. Returns what it returned."""
    started = time.monotonic()
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _child(child, writer)
    os.close(writer)
    try:
        ended = _wait(pid, started + seconds)
    finally:
        _end(pid)
    said = os.read(reader, 65536) if ended else b""
    os.close(reader)
    status, failed, ran = json.loads(said) if said else ("died" if ended else "timeout", "", 0)
    return Outcome(status, failed, ran, round(time.monotonic() - started, 1))


def _child(child: Callable[[], tuple[int | str, str, int]], answer: int) -> None:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.write(answer, json.dumps(child()).encode())
    sys.stdout.flush()
    os._exit(0)


def _wait(pid: int, until: float) -> bool:
    """Returns False if the child did not end in time. It is not reaped."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, flags) is None:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _end(pid: int) -> None:
    """End the tests that still run, first in a way that lets them clean up."""
    for number, seconds in ((signal.SIGINT, 20.0), (signal.SIGKILL, 20.0)):
        if _wait(pid, time.monotonic()):
            break
        os.killpg(pid, number)
        _wait(pid, time.monotonic() + seconds)
    os.waitpid(pid, 0)
