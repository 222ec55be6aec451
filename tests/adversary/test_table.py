# SPDX-License-Identifier: Apache-2.0
"""The table of attacks itself, the list of what gets through, and the page that shows the results."""

from __future__ import annotations

from tests.adversary.expected import FILE
from tests.adversary.results import PAGE, regenerated
from tests.adversary.table import ATTACKS, CLASSES, STARTED

KEYS = [attack.key(kind) for attack in ATTACKS for kind in attack.kinds]


def test_names_are_unique_and_every_class_has_a_title() -> None:
    """Results are kept by name."""
    assert len(KEYS) == len(set(KEYS))
    assert {attack.cls for attack in ATTACKS} | STARTED == set(CLASSES)


def test_the_list_of_what_gets_through_names_attacks() -> None:
    """An attack that was renamed or removed is not expected any more."""
    lines = [line.lstrip("? ").split(" ", 2) for line in FILE.read_text().splitlines()]
    assert [key for _, _, key in lines if key not in KEYS and key.split()[0] not in STARTED] == []


def test_the_page_shows_the_results() -> None:
    """`python -m tests.adversary --render` writes it."""
    page = PAGE.read_text()
    assert page == regenerated(page)
