# SPDX-License-Identifier: Apache-2.0
"""Programs of the kernel tests, compiled once a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import force


@pytest.fixture(scope="session")
def act(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/act.c, compiled: what the probe tests do inside of containers."""
    source = Path(__file__).parent / "fixtures" / "act.c"
    program = tmp_path_factory.mktemp("act") / "act"
    subprocess.run(
        [force.need_program("gcc"), "-O1", "-Wall", "-o", str(program), str(source), "-lpthread"], check=True
    )
    return str(program)
