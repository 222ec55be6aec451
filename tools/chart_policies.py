# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.chart_policies`: copies the project's policies into the chart.

A symbolic link would be shorter, but helm warns of it, and tools that render charts from Git refuse
links out of the chart. A test compares the copies.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

__all__ = ["COPY", "SOURCE", "files"]

ROOT = Path(__file__).resolve().parents[1]
SOURCE, COPY = ROOT / "policies", ROOT / "charts/ringfence/policies"


def files(directory: Path) -> dict[str, bytes]:
    """Returns the policies below a directory, by their relative names."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*.yaml")}


def main() -> int:
    """Writes the copies, and removes those of policies that are gone."""
    shutil.rmtree(COPY, ignore_errors=True)
    for name, data in files(SOURCE).items():
        (COPY / name).parent.mkdir(parents=True, exist_ok=True)
        (COPY / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
