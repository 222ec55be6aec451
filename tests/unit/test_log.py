# SPDX-License-Identifier: Apache-2.0
"""The agent's own log."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_log_neither_loads_rich_nor_hides_it(tmp_path: Path) -> None:
    """structlog would load it for tracebacks; other modules of the process may use it."""
    (tmp_path / "rich").mkdir()
    for name in ("__init__", "console", "traceback"):
        (tmp_path / "rich" / f"{name}.py").touch()
    script = (
        "import sys, ringfence.log, structlog.dev\n"
        "print([name for name in sys.modules if name.startswith('rich')], structlog.dev.rich)\n"
        "import rich.console; print(rich.console.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout == f"[] None\n{tmp_path}/rich/console.py\n"
