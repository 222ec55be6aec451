# SPDX-License-Identifier: Apache-2.0
"""The runner of `make test`: what fails twice fails, what passes by itself is named."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.results import read_results
from tools.check import ROOT, Part, Run

SUITE = """
from pathlib import Path

def test_passes(): pass
def test_fails(): assert 1 == 2, "always"
def test_is_flaky():
    seen = Path(__file__).with_suffix(".seen")
    before = seen.exists()
    seen.write_text("")
    assert before, "the first time"
def test_notes(record_property): record_property("flaky", "6.1: test_x: late")
"""


@pytest.fixture
def suite() -> Iterator[Path]:
    """A file of tests below the project's root: pytest names other files by no path."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as directory:
        yield Path(directory, "test_suite.py")


def test_a_failed_test_runs_once_more(suite: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One that fails again is a failure; one that passes is flaky, and so is what a test notes as such."""
    suite.write_text(SUITE)
    run = Run(tmp_path)
    run.together([Part("host", [str(suite)])])
    run.again()
    capfd.readouterr()
    assert run.report(1.0) == 1
    lines = capfd.readouterr().out.splitlines()
    failed, flaky = lines.index("failed twice:"), lines.index("flaky: failed, and passed by itself:")
    assert lines[failed + 1].endswith("::test_fails: AssertionError: always")
    assert lines[flaky + 1] == "  6.1: test_x: late"
    assert lines[flaky + 2].endswith("::test_is_flaky: AssertionError: the first time")
    assert lines[-1] == "3 passed, 1 failed, 0 skipped"


def test_a_run_that_is_broken_fails(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where nothing ran, or pytest itself failed, although no test did."""
    run = Run(tmp_path)
    run.together([Part("host", ["--no-such-option"])])
    run.again()
    assert run.report(1.0) == 1
    assert capfd.readouterr().out.splitlines()[-1] == "0 passed, 1 failed, 0 skipped"


def test_a_file_that_cannot_be_collected_is_a_failure(suite: Path, tmp_path: Path) -> None:
    """Its tests would be missing from the sum otherwise."""
    suite.write_text("import no_such_module")
    run = Run(tmp_path)
    run.together([Part("host", [str(suite)])])
    [result] = read_results(tmp_path / "host.jsonl")
    assert (result.test, result.outcome) == (str(suite.relative_to(ROOT)), "failed")
    assert result.reason.startswith("ImportError")
