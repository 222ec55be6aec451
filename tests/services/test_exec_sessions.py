# SPDX-License-Identifier: Apache-2.0
"""Commands in containers of real engines with the distribution's runc: alerts say who started the process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.runtime.test_docker import Docker, running_docker
from tests.runtime.test_engines import Podman, prepared_podman
from tests.support.agent import Agent, running_agent
from tests.support.container import make_rootfs
from tests.support.force import need_program, need_root
from tests.support.policies import user_namespace, written
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

RULE = "test-user-namespace"
ENTRYPOINT = "sleep 2; unshare -U true; sleep 3600"
#: the container's first program, a command in it, a shell of a session in it
EXPECTED = (["sh", "(entrypoint)"], ["(runtime exec)"], ["sh", "(runtime exec)"])


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Docker | Podman]:
    """The engine with an image `rftest` and runc."""
    need_root()
    runc = Path(need_program("runc"))
    directory = tmp_path_factory.mktemp(request.param)
    context: AbstractContextManager[Docker | Podman]
    if request.param == "docker":
        context = running_docker(directory, runc)
    else:
        context = prepared_podman(runc, make_rootfs(directory / "rootfs", busybox=need_program("busybox")))
    with context as made:
        yield made


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    """Knows the names that engines give to cgroups; its rule only reports, as others may run containers."""
    policies = written(tmp_path, user_namespace(action="alert"))
    flags = {"containers-known": "yes", "alerts-repeat": "0"}  # the three calls differ in their parents only
    with running_agent(
        tmp_path / "agent", policies=[policies], mode="policy", patterns=[], flags=flags
    ) as made:
        yield made


def test_the_ancestry_ends_in_the_entrypoint_or_in_a_session(agent: Agent, engine: Docker | Podman) -> None:
    """`docker exec` and `podman exec`, a command and one below a shell; and the container's own program."""
    unconfined = ["--security-opt", "seccomp=unconfined"]  # the engines' profiles refuse the call first
    name = engine.run("--detach", *unconfined, "rftest", "/bin/sh", "-c", ENTRYPOINT).stdout.strip()
    try:
        engine("exec", name, "unshare", "-U", "true", ok=False)
        engine("exec", name, "sh", "-c", "unshare -U true; true", ok=False)
        wait_for(lambda: len(agent.alerts(name, RULE)) >= len(EXPECTED), "the alerts", seconds=20)
    finally:
        engine("rm", "--force", name, ok=False)
    found = [one["process"]["ancestry"] for one in agent.alerts(name, RULE)]
    assert sorted([step["comm"] for step in one] for one in found) == sorted(EXPECTED)
