# SPDX-License-Identifier: Apache-2.0
"""docs/adr: each decision has the same form, and the index lists each with its status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).resolve().parents[2] / "docs/adr"
PAGES = sorted(DIRECTORY.glob("[0-9]*.md"))
STATUS = re.compile(r"accepted, (?:built|partly built|not built)|superseded by \d+")
SECTIONS = ["Context", "Decision", "Rejected", "Consequences"]
MOST_WORDS = 400


def test_numbers_have_no_gap() -> None:
    """A number is never used again, so none is missing."""
    assert [int(page.name[:4]) for page in PAGES] == list(range(1, len(PAGES) + 1))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_the_form_and_is_in_the_index(page: Path) -> None:
    """Title, status and four sections on less than one page; the same title and status in the index."""
    text = page.read_text()
    head = re.match(r"# (\d+)\. (.+)\n\nStatus: (.+)\n\n", text)
    assert head is not None
    number, title, status = head.groups()
    assert int(number) == int(page.name[:4])
    assert STATUS.fullmatch(status)
    assert re.findall(r"^## (.+)$", text, re.M) == SECTIONS
    assert len(text.split()) < MOST_WORDS
    row = f"| [{number}]({page.name}) | {title} | {status} |"
    assert row in (DIRECTORY / "README.md").read_text().splitlines()
