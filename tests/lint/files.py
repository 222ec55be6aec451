# SPDX-License-Identifier: Apache-2.0
"""Which files are the project's own."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["ROOT", "files", "shell_scripts"]

ROOT = Path(__file__).resolve().parents[2]
SKIPPED = {".venv", ".cache", "build", "dist", "results", "__pycache__"}


def files(*suffixes: str) -> list[Path]:
    """Every file that git has or would take, with one of these suffixes; relative to the project's root."""
    git = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    got = subprocess.run(git, capture_output=True, check=False)
    if got.returncode == 0:
        names = [name for name in got.stdout.decode().split("\0") if name]
    else:  # an unpacked source archive
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    paths = {Path(name) for name in names}
    return sorted(
        path
        for path in paths
        if (ROOT / path).is_file() and not SKIPPED.intersection(path.parts) and path.suffix in suffixes
    )


def shell_scripts() -> list[Path]:
    """Scripts whose first line names a shell, whatever they are called."""
    found = []
    for path in files("", ".sh", ".bash"):
        with (ROOT / path).open("rb") as file:
            first = file.readline(100)
        if first.startswith(b"#!") and first.rstrip().endswith((b"bash", b"/sh", b" sh")):
            found.append(path)
    return found
