# SPDX-License-Identifier: Apache-2.0
"""The table of failure paths in docs/reference/faults.md names programs of the probes."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## Failure paths of deciding programs"


def programs() -> set[str]:
    """Names of all programs."""
    text = "".join(path.read_text() for path in sorted((ROOT / "probes").glob("*.bpf.c")))
    plain = re.findall(
        r"^SEC\(\"[^\"]+\"\)\s*int (?:(?:BPF_PROG|RF_HOOK|RF_HOOK_NO_RESULT)\()?(\w+)", text, re.M
    )
    return {*plain, *re.findall(r"^RF_ENDPOINT_PROGRAM\((\w+)", text, re.M)}


def test_the_programs_of_the_table_exist() -> None:
    """In its first and last column."""
    section = (ROOT / "docs/reference/faults.md").read_text().split(HEADING)[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 8
    first = {name for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    named = {name for row in rows for name in re.findall(r"`((?:lsm|task)_\w+)`", row[-1])}
    assert len(first) > 8
    assert not (first | named) - programs()
