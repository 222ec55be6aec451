# SPDX-License-Identifier: Apache-2.0
"""The skip policy: a test with a missing part is
skipped with a reason, and fails where it is forced.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import force

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import pytest
from tests.support import force

@pytest.mark.needs("no-such-program")
def test_needs_a_program(): pass

def test_plain_skip(): pytest.skip("because")

def test_elsewhere(): force.elsewhere("another kernel")

def test_passes(): pass
"""


def run_suite(directory: Path, forced: str) -> str:
    """Returns pytest's output over SUITE, with our conftest as a plugin."""
    (directory / "test_suite.py").write_text(SUITE)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers =\n  needs: parts\n  root: root\n")
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", str(directory)]
    environment = {**os.environ, force.VARIABLE: forced, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, check=False
    ).stdout


def test_missing_parts_skip_with_their_reasons(tmp_path: Path) -> None:
    """Nothing forced: three skips, each reason on a line, with the word that would force it."""
    output = run_suite(tmp_path, "")
    assert "1 passed, 3 skipped" in output
    assert "needs the program no-such-program [RINGFENCE_FORCE=no-such-program]" in output
    assert "elsewhere: another kernel" in output


def test_a_forced_part_fails(tmp_path: Path) -> None:
    """Only the named part fails."""
    output = run_suite(tmp_path, "root,no-such-program")
    assert "1 passed, 2 skipped, 1 error" in output
    assert "RINGFENCE_FORCE forces 'no-such-program'" in output


def test_all_allows_no_skip_but_elsewhere(tmp_path: Path) -> None:
    """With everything forced a plain skip fails, too; a test for another kernel does not."""
    output = run_suite(tmp_path, "all")
    assert "1 failed, 1 passed, 1 skipped, 1 error" in output
    assert "allows no skip" in output


@pytest.mark.parametrize(("value", "answer"), [("", False), ("vm", True), ("root, vm", True), ("all", True)])
def test_forced_reads_the_variable(monkeypatch: pytest.MonkeyPatch, value: str, *, answer: bool) -> None:
    """Names are separated by commas; `all` is every name."""
    monkeypatch.setenv(force.VARIABLE, value)
    assert force.forced("vm") is answer
