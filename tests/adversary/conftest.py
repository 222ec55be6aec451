# SPDX-License-Identifier: Apache-2.0
"""The programs of the attacks, compiled once per run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import force


@pytest.fixture(scope="session")
def unbound_program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """fixtures/unbound.c, static, so that it runs in any root."""
    made = tmp_path_factory.mktemp("unbound") / "unbound"
    source = Path(__file__).parent / "fixtures" / "unbound.c"
    words = ["-O1", "-Wall", "-static", "-o", str(made), str(source)]
    subprocess.run([force.need_program("gcc"), *words], check=True)
    return str(made)
