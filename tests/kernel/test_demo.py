# SPDX-License-Identifier: Apache-2.0
"""The demonstration ends well: each attempt as wanted, no false positive. Each run of the tests shows it,
not only the whole check, as its attempts share targets and events with the pack that changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import patience

pytestmark = [pytest.mark.root, pytest.mark.needs("runc", "busybox", "gcc", "unshare")]

ROOT = Path(__file__).parents[2]


def test_the_demonstration_ends_well() -> None:
    """`make demo` ends with 0 and says so."""
    argv = [sys.executable, "-m", "tools.demo"]
    got = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=patience(120), check=False)
    assert got.returncode == 0, got.stdout + got.stderr
    assert "attempts stopped, 0 unexpected results" in got.stdout
    assert "no false positive" in got.stdout
