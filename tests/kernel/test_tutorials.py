# SPDX-License-Identifier: Apache-2.0
"""The tutorials and how-to pages of docs/, command by command, with a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import force
from tests.support.probes import need_bcc
from tests.support.tutorials import HOW_TO, PAGES, Reader, follow_page

pytestmark = [pytest.mark.root, pytest.mark.needs("bash", "jq")]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader with a configuration as the package has it."""
    force.need_root()
    made = Reader(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])
def test_the_page_is_true(page: Path, reader: Reader) -> None:
    """Each command succeeds, or prints what the page shows. The agent runs, unless the page starts it."""
    follow_page(page, reader)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in HOW_TO])
def test_a_how_to_page_is_true(page: Path, reader: Reader) -> None:
    """In the same way. Custom probes need bcc."""
    if page.stem == "write-a-probe":
        need_bcc()
    follow_page(page, reader)
