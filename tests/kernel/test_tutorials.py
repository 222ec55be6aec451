# SPDX-License-Identifier: Apache-2.0
"""The tutorials of docs/, command by command, with a real agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import force
from tests.support.tutorials import PAGES, Reader, steps

pytestmark = [pytest.mark.root, pytest.mark.needs("bash", "jq")]

STARTS = ("systemctl enable", "helm install")


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
    parts = list(steps(page.read_text()))
    if not any(step.text.startswith(STARTS) for step in parts):
        reader.agent.start()
    for step in parts:
        try:
            reader.follow(step)
        except AssertionError as error:
            raise AssertionError(f"{page.name}:{step.line}: {error}\n{reader.agent.tail(800)}") from None
