# SPDX-License-Identifier: Apache-2.0
"""The table of docs/reference/runtime.md and the regression tests name the same CVEs."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_cve_has_its_test_and_each_test_its_line() -> None:
    """`test_cve_2019_5736_...` is for CVE-2019-5736; more numbers of that year may follow."""
    table = re.search(r"^\| CVE .*?\n\n", (ROOT / "docs/reference/runtime.md").read_text(), re.M | re.S)
    assert table is not None
    listed = {
        number
        for line in table[0].strip().splitlines()
        for number in re.findall(r"\d{4}-\d{4,}", line.split("|")[1])
    }
    tested: set[str] = set()
    for file in (ROOT / "tests/runtime").glob("test_*.py"):
        for year, numbers in re.findall(r"^def test_cve_(\d{4})((?:_\d{4,})+)", file.read_text(), re.M):
            tested |= {f"{year}-{number}" for number in numbers.split("_")[1:]}
    assert listed == tested
