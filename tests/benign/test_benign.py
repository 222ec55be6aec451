# SPDX-License-Identifier: Apache-2.0
"""Real programs under the whole pack in enforce mode: they do their work, and no rule stops them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benign.machine import host_root, new_bundle
from tests.benign.running import need, not_affected, stopped
from tests.benign.workloads import EXECS, WORKLOADS, Workload
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Container
from tests.support.policies import PACK

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc")]

LOOPBACK = "ip link set lo up 2>/dev/null || true\n"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """One enforcing agent for all tests."""
    force.need_root()
    with running_agent(tmp_path_factory.mktemp("agent"), policies=[PACK], mode="enforce") as agent:
        yield agent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the machine's root for all tests."""
    force.need_root()
    with host_root(tmp_path_factory.mktemp("root")) as path:
        yield path


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_benign_work_is_not_affected(workload: Workload, guard: Agent, root: Path, tmp_path: Path) -> None:
    """Status 0, nothing denied or killed, and no alert except those that the table names."""
    need(workload.needs)
    bundle = new_bundle(tmp_path, root, LOOPBACK + workload.script, workload.capabilities)
    if workload.token:
        where = "/var/run/secrets/kubernetes.io/serviceaccount"
        bundle.add_mount("/run/secrets", "tmpfs", "mode=755", "size=1m")
        bundle.config["process"]["args"][2] = (
            f"mkdir -p {where}; printf 'eyJhbGciOiJub25lIn0.e30.' > {where}/token\n" + workload.script
        )
    not_affected(guard, bundle, workload.name, workload.seconds, workload.reported)


def test_shells_and_health_checks_are_not_affected(guard: Agent, root: Path, tmp_path: Path) -> None:
    """As with `docker exec`: processes that a runtime starts in a running container."""
    bundle = new_bundle(tmp_path, root, "exec sleep 600")
    name = f"{PREFIX}benign-exec-{secrets.token_hex(3)}"
    container = Container(name, bundle.write(name))
    before = stopped(guard)
    try:
        container.start()
        for text in EXECS:
            got = container.exec("/bin/sh", "-c", text)
            assert got.returncode == 0, (text, got.stdout, got.stderr)
    finally:
        container.remove()
    assert stopped(guard) == before
    assert guard.alerts(name) == []
