# SPDX-License-Identifier: Apache-2.0
"""The tutorials are short and reachable; tests/kernel/test_tutorials.py runs each of their commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.tutorials import PAGES, ROOT, runner_of, shows, steps

PARAMETERS = [pytest.param(page, id=page.stem) for page in PAGES]


def test_there_are_the_four_tutorials() -> None:
    """Or the tests below test nothing."""
    assert [page.stem for page in PAGES] == [
        "a-cluster-in-fifteen-minutes",
        "a-host-in-five-minutes",
        "reading-an-alert",
        "your-first-policy",
    ]


@pytest.mark.parametrize("page", PARAMETERS)
def test_each_command_is_run(page: Path) -> None:
    """Indented lines are commands; a runner is known for each."""
    commands = [step.text for step in steps(page.read_text()) if step.kind == "command"]
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    assert commands == re.findall(r"^    (\S.*)", prose, re.M)
    assert len(commands) > 5
    for command in commands:
        runner_of(command)


@pytest.mark.parametrize("command", ["rm -r /", "ringfence stop web", "kubectl apply -f x.yaml", "make demo"])
def test_a_command_that_no_test_runs_is_refused(command: str) -> None:
    """Other programs, and other parts of the same ones."""
    with pytest.raises(AssertionError, match="no test runs this"):
        runner_of(command)


@pytest.mark.parametrize("page", PARAMETERS)
def test_a_tutorial_is_short_and_its_links_lead_somewhere(page: Path) -> None:
    """150 to 500 words; README and at least one other page link to it."""
    text = page.read_text()
    assert 150 <= len(text.split()) <= 500
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / target).exists(), target
    assert f"docs/tutorials/{page.name}" in (ROOT / "README.md").read_text()
    others = [one for one in (ROOT / "docs").rglob("*.md") if f"tutorials/{page.name}" in one.read_text()]
    assert others


def test_output_is_compared_line_by_line() -> None:
    """Times and process ids differ; other words may not, nor the order."""
    output = "07:00:00.1 high   denied a[12] b\nsecond line\n"
    assert shows(output, "09:11:11.222 high denied a[7] b\nsecond ...\n")
    assert not shows(output, "09:11:11.222 high killed a[7] b\n")
    assert not shows(output, "second line\n07:00:00.1 high denied a[12] b\n")
    assert not shows("", "second line\n")
