# SPDX-License-Identifier: Apache-2.0
"""What several tests of packages are about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.image.build import ATTACKS, build_wheel
from tests.support.force import missing

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That of this checkout, built once."""
    if not (ROOT / ATTACKS).is_file():
        missing("image", "the probes are not compiled: make build")
    target = tmp_path_factory.mktemp("wheel")
    done = build_wheel(ROOT, target)
    if done.returncode:
        missing("image", f"the wheel cannot be built here: {done.stderr.strip()[-400:]}")
    return next(target.glob("*.whl"))
