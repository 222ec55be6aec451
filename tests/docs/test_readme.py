# SPDX-License-Identifier: Apache-2.0
"""README.md is one short page: what a newcomer reads first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MOST_WORDS = 900
MOST_LIMITS = 5


def section(title: str) -> str:
    """Returns the text below a heading."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_it_is_short() -> None:
    """Fewer than 900 words, tables included; limits in five lines."""
    assert len(README.split()) < MOST_WORDS
    assert len(re.findall(r"^- ", section("Limits"), re.M)) == MOST_LIMITS


@pytest.mark.parametrize(
    "title", ["Install", "First alert", "What it stops", "How it compares", "What it costs", "Documentation"]
)
def test_it_has_what_a_newcomer_looks_for(title: str) -> None:
    """In a section of its own."""
    assert section(title).strip()


def test_it_shows_the_demonstration_and_the_coverage() -> None:
    """Both pictures, drawn by programs."""
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert pictures == ["docs/demo.svg", "docs/reference/coverage.svg"]


def test_the_comparison_names_the_columns_of_its_page() -> None:
    """The short table is about the same projects as the one with the sources."""
    page = (ROOT / "docs/explanation/comparison.md").read_text()
    (short,) = re.findall(r"^\| \| Ringfence .*$", section("How it compares"), re.M)
    (whole,) = re.findall(r"^\| \| Ringfence .*$", page, re.M)
    assert short == whole
