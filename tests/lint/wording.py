# SPDX-License-Identifier: Apache-2.0
"""Finds words that the project does not use (wording.txt), in code, comments and documents.

`python -m tests.lint.wording [FILE ...]` prints each finding, and what to write instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lint.files import ROOT, files

__all__ = ["Finding", "Pattern", "checked_files", "find", "patterns"]

HERE = Path(__file__).resolve().parent
LIST = HERE / "wording.txt"
SUFFIXES = (
    ".py",
    ".c",
    ".h",
    ".md",
    ".sh",
    ".yaml",
    ".yml",
    ".tpl",
    ".txt",
    ".toml",
    ".html",
    ".css",
    ".js",
    "",
)
# They name the words in order to forbid them, or are texts of other projects.
EXEMPT = {
    "CHANGELOG.md",  # the names of before
    "docs/reference/glossary.md",
    "tests/lint/test_wording.py",
    "tests/lint/wording.py",
    "tests/lint/wording.txt",
}
EXEMPT_ROOTS = ("LICENSE", "LICENSES/", "tests/data/", "tests/prometheus/data/")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A word that is not used, and what to write instead."""

    name: str
    expression: re.Pattern[str]
    instead: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where a file uses such a word."""

    path: str
    line: int
    text: str
    pattern: Pattern

    def __str__(self) -> str:
        """As compilers print it: place, word, replacement."""
        return f"{self.path}:{self.line}: '{self.text}': write {self.pattern.instead}"


def patterns(text: str | None = None) -> list[Pattern]:
    """The patterns of wording.txt, or of another text in its form."""
    lines = (LIST.read_text() if text is None else text).splitlines()
    rows = [line.split(" | ") for line in lines if line.strip() and not line.startswith("#")]
    return [Pattern(name.strip(), re.compile(rule.strip()), instead) for name, rule, instead in rows]


def checked_files() -> list[str]:
    """Paths of the files that are searched, relative to the project's root."""
    paths = (path.as_posix() for path in files(*SUFFIXES))
    return [path for path in paths if path not in EXEMPT and not path.startswith(EXEMPT_ROOTS)]


def find(path: str, rules: list[Pattern]) -> Iterator[Finding]:
    """Every use of a forbidden word in one file."""
    text = (ROOT / path).read_text(errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        for rule in rules:
            for found in rule.expression.finditer(line):
                yield Finding(path, number, found[0].strip(), rule)


def main(paths: list[str]) -> int:
    """Print the findings of these files, or of all; returns 1 if there are any."""
    rules = patterns()
    findings = [finding for path in paths or checked_files() for finding in find(path, rules)]
    print(*findings, f"{len(findings)} findings", sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
