# SPDX-License-Identifier: Apache-2.0
"""The attack program (attacks/*.c and tests/support/attacks), compiled again if a source is newer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from ringfence.proof.program import PROGRAM, REFUSED, WORKED, Attempt, read_attempt

__all__ = ["PROGRAM", "REFUSED", "WORKED", "Attempt", "build", "read_attempt"]

_TESTS = Path(__file__).resolve().parents[1]
_FILES = sorted([*_TESTS.glob("escape/attacks/*"), *_TESTS.glob("support/attacks/*")])


def build() -> Path:
    """Compiles it if it is older than a source; returns its path."""
    newest = max(path.stat().st_mtime for path in _FILES)
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < newest:
        fresh = PROGRAM.with_name(f"attacks.{os.getpid()}")
        sources = [str(path) for path in _FILES if path.suffix == ".c"]
        subprocess.run(["gcc", "-O1", "-Wall", "-static", "-o", str(fresh), *sources], check=True)
        fresh.rename(PROGRAM)
    return PROGRAM
