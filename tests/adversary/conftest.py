# SPDX-License-Identifier: Apache-2.0
"""The agent that is attacked, and the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversary.world import World, guarding, kubelet_directory, new_world
from tests.support import force
from tests.support.agent import Agent


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One enforcing agent with self-defence for a module's attacks."""
    force.need_root()
    force.need_program("runc")
    with kubelet_directory(), guarding(tmp_path_factory.mktemp("agent")) as agent:
        yield agent


@pytest.fixture(scope="module")
def world(guard: Agent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The host, after the agent: its containers are enrolled when they are created."""
    with new_world(tmp_path_factory.mktemp("world")) as made:
        yield made
