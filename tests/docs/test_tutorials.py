# SPDX-License-Identifier: Apache-2.0
"""Tutorials and how-to pages are short and reachable; tests/kernel/test_tutorials.py runs their commands."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.tutorials import HOW_TO, INSTEAD, PAGES, ROOT, Reader, runner_of, shows, steps

PARAMETERS = [pytest.param(page, id=page.stem) for page in [*PAGES, *HOW_TO]]
#: what needs no substitute: the page's own command runs, and its output is compared
RUN = {Reader.run, Reader.ask, Reader.watch}
NOWHERE = "http://127.0.0.1:1"


def _commands(page: Path) -> list[str]:
    return [step.text for step in steps(page.read_text()) if step.kind == "command"]


def test_there_are_the_pages() -> None:
    """Or the tests below test nothing."""
    assert [page.stem for page in PAGES] == [
        "a-cluster-in-fifteen-minutes",
        "a-host-in-five-minutes",
        "reading-an-alert",
        "your-first-policy",
    ]
    assert [page.stem for page in HOW_TO] == [
        "agent-not-ready",
        "audit-to-enforce",
        "exempt-a-workload",
        "migrate-from-falco",
        "migrate-from-kubearmor",
        "migrate-from-tetragon",
        "roll-back",
        "uninstall",
        "upgrade",
        "what-would-have-been-blocked-last-week",
        "write-a-probe",
    ]


@pytest.mark.parametrize("page", PARAMETERS)
def test_each_command_is_run(page: Path) -> None:
    """Indented lines are commands; a runner is known for each."""
    commands = _commands(page)
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    assert commands == re.findall(r"^    (\S.*)", prose, re.M)
    assert len(commands) > 3
    for command in commands:
        assert runner_of(command) in RUN | INSTEAD.keys()


def test_there_is_a_reason_for_each_substitute() -> None:
    """And a command of each kind. What a reason names in tests/ is there."""
    used = {runner_of(command) for page in [*PAGES, *HOW_TO] for command in _commands(page)}
    assert used == RUN | INSTEAD.keys()
    for reason in INSTEAD.values():
        for path in re.findall(r"tests/\S+[^\s,;]", reason):
            assert (ROOT / path).exists(), path


KUBECTL = sorted({one for page in [*PAGES, *HOW_TO] for one in _commands(page) if "kubectl" in one})


@pytest.mark.needs("kubectl")
@pytest.mark.parametrize("command", KUBECTL)
def test_kubectl_knows_the_flags(command: str, tmp_path: Path) -> None:
    """A command with a mistake ends before the server is asked; there is none at this address."""
    call = command.partition(" | ")[0].replace("kubectl ", f"kubectl --server={NOWHERE} ", 1)
    variables = {**os.environ, "KUBECONFIG": os.devnull, "HOME": str(tmp_path)}
    ended = subprocess.run(["bash", "-c", call], env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "127.0.0.1:1" in ended.stderr
    assert "unknown" not in ended.stderr


def test_the_capability_of_custom_probes_is_the_same_on_both_pages() -> None:
    """`systemctl edit` opens an editor, so no test runs it: the lines are compared."""
    (lines,) = re.findall(
        r"^```ini\n(.*?)^```", (ROOT / "docs/how-to/write-a-probe.md").read_text(), re.M | re.S
    )
    reference = (ROOT / "docs/reference/install.md").read_text()
    assert "".join(f"    {line}\n" for line in lines.splitlines()) in reference
    assert lines.splitlines()[0] == "[Service]"


@pytest.mark.parametrize("command", ["rm -r /", "ringfence stop web", "kubectl apply -f x.yaml", "make demo"])
def test_a_command_that_no_test_runs_is_refused(command: str) -> None:
    """Other programs, and other parts of the same ones."""
    with pytest.raises(AssertionError, match="no test runs this"):
        runner_of(command)


@pytest.mark.parametrize("page", PARAMETERS)
def test_a_page_is_short_and_its_links_lead_somewhere(page: Path) -> None:
    """100 to 500 words; the index links to it. README and another page link to a tutorial."""
    text = page.read_text()
    assert 100 <= len(text.split()) <= 500
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (page.parent / target).exists(), target
    assert f"]({page.parent.name}/{page.name})" in (ROOT / "docs/README.md").read_text()
    if page in PAGES:
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
