# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test modules need under names and labels of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup

__all__ = ["agent_fixture", "cgroup_fixture"]


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
