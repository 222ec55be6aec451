# SPDX-License-Identifier: Apache-2.0
"""Finds words that the project does not use (wording.txt), in code, comments and documents.

`python -m tests.lint.wording` prints the number of findings per file; with paths, each finding of these
files. `--shrink` removes from wording_not_yet.txt what is clean or gone, and adds nothing. `--rewrite`
writes that list again (after a merge that renamed unconverted files).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lint.files import ROOT, files

__all__ = ["Finding", "Pattern", "checked_files", "find", "not_yet", "patterns"]

HERE = Path(__file__).resolve().parent
LIST = HERE / "wording.txt"
NOT_YET = HERE / "wording_not_yet.txt"
SUFFIXES = (".py", ".c", ".h", ".md", ".sh", ".yaml", ".yml", ".tpl", ".txt", ".toml", ".html", "")
# They name the words in order to forbid them, or are texts of other projects.
EXEMPT = {
    "CHANGELOG.md",  # the names of before
    "docs/glossary.md",
    "tests/lint/test_wording.py",
    "tests/lint/wording.py",
    "tests/lint/wording.txt",
    "tests/lint/wording_not_yet.txt",
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


def not_yet() -> list[str]:
    """Files that are not converted to plain technical English yet."""
    lines = NOT_YET.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _write(paths: set[str]) -> None:
    head = [line for line in NOT_YET.read_text().splitlines() if line.startswith("#")]
    NOT_YET.write_text("".join(f"{line}\n" for line in [*head, *sorted(paths)]))


def _report(found: dict[str, list[Finding]], *, every: bool) -> Iterator[str]:
    waiting = set(not_yet())
    for path, findings in sorted(found.items(), key=lambda item: -len(item[1])):
        if every:
            yield from map(str, findings)
        elif findings:
            yield f"{len(findings):5} {path}" + ("" if path in waiting else "   <- a converted file")
    yield f"{sum(map(len, found.values())):5} in {sum(map(bool, found.values()))} files"


def main(arguments: list[str]) -> int:
    """Print findings; returns 1 if a file that is not listed as unconverted has any."""
    paths = [argument for argument in arguments if not argument.startswith("--")]
    rules = patterns()
    found = {path: list(find(path, rules)) for path in paths or checked_files()}
    dirty = {path for path, findings in found.items() if findings}
    if "--shrink" in arguments:
        _write(dirty & set(not_yet()))
    if "--rewrite" in arguments:
        _write(dirty)
    print(*_report(found, every=bool(paths)), sep="\n")
    return 1 if dirty - set(not_yet()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
