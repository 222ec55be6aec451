# SPDX-License-Identifier: Apache-2.0
"""Plain technical English: spelling by codespell, and the words of wording.txt are not used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lint.files import ROOT, files
from tests.lint.wording import HERE, SUFFIXES, checked_files, find, main, patterns
from tests.support import force

RULES = patterns()
GENERATED = ("docs/reference/cli.md", "docs/reference/coverage.md")
MOST_COLUMNS = 100


def test_plain_words_are_used() -> None:
    """No word of wording.txt, in code, comments or prose; each finding says what to write instead."""
    findings = [finding for path in checked_files() for finding in find(path, RULES)]
    assert not findings, "\n" + "\n".join(map(str, findings))


def prose(path: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of a Markdown file that are neither code, generated, tables, headings nor links."""
    fenced = False
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        fence = line.lstrip().startswith(("```", "<!-- table", "<!-- end"))
        fenced ^= fence
        if not (fence or fenced or line.startswith(("    ", "#", "|", "<!--")) or "](" in line):
            yield number, line


def test_prose_is_wrapped() -> None:
    """At most 100 columns, in pages that no program writes."""
    pages = [path for path in checked_files() if path.endswith(".md") and path not in GENERATED]
    long = [f"{path}:{number}" for path in pages for number, line in prose(path) if len(line) > MOST_COLUMNS]
    assert "README.md" in pages
    assert not long, "\n" + "\n".join(long)


@pytest.mark.parametrize(
    "line",
    [
        "the container is told to stop",
        "def _told_path() -> str:",
        "an event that tells of a mount",
        "a rule that is met",
        "whoever may write there",
        "no process of ours stays",
        "fails for want of memory",
        "what enforcing comes to on this node",
        "# Who makes one more is killed.",
        "an exception for who can replace it",
        "the thread was begun anew",
        "the reason stands in the log",
        "its parent lets go of him",
    ],
)
def test_the_idiom_is_found(line: str) -> None:
    """One line for each kind of pattern."""
    assert [rule.name for rule in RULES if rule.expression.search(line)]


@pytest.mark.parametrize(
    "line",
    [
        "offset = file.tell()",
        "method metadata symmetric Prometheus",
        "which user is it, and who are its peers",
        "Who is the owner of this cgroup?",
        "a user who is not root",
        "the outcome of this call",
        "https://example.org/he",
    ],
)
def test_ordinary_words_are_not_found(line: str) -> None:
    """Parts of other words, method calls, questions."""
    assert not [rule.name for rule in RULES if rule.expression.search(line)]


def test_the_command_prints_findings(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its place, and a total; 1 for a file that may not have any."""
    assert main(["README.md"]) == 0
    assert capsys.readouterr().out == "0 findings\n"
    assert main(["docs/reference/glossary.md"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("docs/reference/glossary.md:")
    assert lines[-1] == f"{len(lines) - 1} findings"


def test_the_spelling_is_right() -> None:
    """codespell, with .codespellrc; words that it mistakes are in codespell.txt."""
    own = Path(sys.executable).parent / "codespell"
    program = str(own) if own.exists() else force.need_program("codespell")
    names = [str(path) for path in files(*SUFFIXES, ".json")]
    got = subprocess.run([program, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stdout + got.stderr
    assert (HERE / "codespell.txt").is_file()
