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
    return _compiled(tmp_path_factory, "act")


@pytest.fixture(scope="session")
def evade(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/evade.c, compiled: ways to a file other than by its name."""
    return _compiled(tmp_path_factory, "evade")


@pytest.fixture(scope="session")
def tamper(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/tamper.c, compiled: what containers try against the agent."""
    return _compiled(tmp_path_factory, "tamper")


@pytest.fixture(scope="session")
def names(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/names.c, compiled: what can be done to the names of files."""
    return _compiled(tmp_path_factory, "names")


@pytest.fixture(scope="session")
def probe_act(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of fixtures/probe_act.c, compiled: what the tests of custom probes do inside of containers."""
    return _compiled(tmp_path_factory, "probe_act", "-static")


def _compiled(factory: pytest.TempPathFactory, name: str, *options: str) -> str:
    source = Path(__file__).parent / "fixtures" / f"{name}.c"
    program = factory.mktemp(name) / name
    words = ["-O1", "-Wall", *options, "-o", str(program), str(source), "-lpthread"]
    subprocess.run([force.need_program("gcc"), *words], check=True)
    return str(program)
