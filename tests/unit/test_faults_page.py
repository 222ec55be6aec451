# SPDX-License-Identifier: Apache-2.0
"""docs/faults.md promises a test for each fault: the files that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/faults.md").read_text()


def test_every_row_names_tests_that_exist() -> None:
    """The last cell of each row."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 15
    for row in rows:
        names = re.findall(r"`(test_[a-z0-9_]+\.py)`", row.split("|")[-2])
        assert names, row
        for name in names:
            assert list(ROOT.glob(f"tests/**/{name}")), name
