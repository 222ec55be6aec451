# SPDX-License-Identifier: Apache-2.0
"""Small C programs for use in containers, for calls that shell applets cannot make."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import force

__all__ = ["add_program"]


def add_program(root: Path, name: str, source: str) -> str:
    """Compile `source` to a static /bin/NAME below `root`. Returns its path in there."""
    compiler = force.need_program("gcc")
    target = root / "bin" / name
    command = [compiler, "-static", "-O1", "-Wall", "-Werror", "-o", str(target), "-x", "c", "-"]
    subprocess.run(command, input=source, text=True, check=True)
    return f"/bin/{name}"
