# SPDX-License-Identifier: Apache-2.0
"""docs/reference/cli.md shows the help of every command as the program prints it.

`python -m tests.docs.test_cli_page` rewrites the page.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from ringfence.cli.main import build_parser

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/cli.md"
WIDTH = "100"
BLOCK = re.compile(r"^## `(ringfence[^`]*)`\n\n```text\n(.*?)```\n", re.M | re.S)


def helps() -> Iterator[tuple[str, str]]:
    """Yields every command and subcommand with its help, as on a terminal of a fixed width."""
    with mock.patch.dict(os.environ, {"COLUMNS": WIDTH, "NO_COLOR": "1"}):
        yield from _below(build_parser())


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    yield parser.prog, parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _below(part)


def test_the_page_shows_the_help_of_the_program() -> None:
    """For every command, in the same order."""
    shown = BLOCK.findall(PAGE.read_text())
    assert [name for name, _ in shown] == [name for name, _ in helps()]
    for (name, text), (_, real) in zip(shown, helps(), strict=True):
        assert text == real, f"docs/reference/cli.md is behind: {name}"


def write() -> None:
    """Writes the current help into the page; the text before the first command stays."""
    head = PAGE.read_text().split("\n## `ringfence", 1)[0].rstrip()
    blocks = (f"## `{name}`\n\n```text\n{text}```\n" for name, text in helps())
    PAGE.write_text(head + "\n\n" + "\n".join(blocks))


if __name__ == "__main__":
    write()
