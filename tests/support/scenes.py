# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test modules need under names and labels of their own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup

__all__ = ["agent_fixture", "cgroup_fixture", "program_fixture"]


def agent_fixture(label: str) -> Any:
    """Returns a fixture: an agent with the module's `policies` only, for cgroups with that label."""

    @pytest.fixture
    def agent(tmp_path: Path, policies: Path) -> Iterator[Agent]:
        patterns = [f"{PREFIX}{label}-*"]
        with running_agent(tmp_path / "agent", policies=[policies], mode="policy", patterns=patterns) as made:
            yield made

    return agent


def cgroup_fixture(label: str, *, after: str) -> Any:
    """Returns a fixture: a cgroup with that label, created after the fixture that observes it."""

    @pytest.fixture
    def cgroup(request: pytest.FixtureRequest) -> Iterator[Cgroup]:
        request.getfixturevalue(after)
        with new_cgroup(label) as made:
            yield made

    return cgroup


def program_fixture(source: Path, *options: str) -> Any:
    """Returns a fixture: the path of a C program, compiled once per run with these options."""

    @pytest.fixture(scope="session")
    def program(tmp_path_factory: pytest.TempPathFactory) -> str:
        made = tmp_path_factory.mktemp(source.stem) / source.stem
        words = ["-O1", "-Wall", *options, "-o", str(made), str(source), "-lpthread"]
        subprocess.run([force.need_program("gcc"), *words], check=True)
        return str(made)

    return program
