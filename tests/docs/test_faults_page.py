# SPDX-License-Identifier: Apache-2.0
"""docs/reference/faults.md promises a test for each fault: those that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/faults.md").read_text()


def test_every_row_names_a_test_that_exists() -> None:
    """The last cell of each row: file and function."""
    table = PAGE.partition("## Failure paths")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 25
    for row in rows:
        names = re.findall(r"`(test_[a-z0-9_]+\.py)::(test_\w+)`", row.split("|")[-2])
        assert names, row
        for name, function in names:
            found = [path.read_text() for path in ROOT.glob(f"tests/**/{name}")]
            assert any(f"def {function}(" in text for text in found), (name, function)
