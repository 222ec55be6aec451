# SPDX-License-Identifier: Apache-2.0
"""Real programs under the whole pack in enforce mode: they do their work, and no rule stops them."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benign.machine import host_root, new_bundle
from tests.benign.workloads import EXECS, WORKLOADS, Workload
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.container import Container
from tests.support.policies import PACK
from tests.support.waiting import patience

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.needs("runc")]

PART = "benign"  # of RINGFENCE_FORCE: the programs of tools/deps' group of that name
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


def stopped(agent: Agent) -> dict[str, float]:
    """Returns the number of stopped calls by rule, counted before any rate limit."""
    return {
        dict(labels)["rule"]: value
        for (name, labels), value in agent.metrics().items()
        if name == "ringfence_alerts_total" and dict(labels)["outcome"] not in ("seen",) and value
    }


def need(programs: tuple[str, ...]) -> None:
    """Skips or fails the test if a program is not installed."""
    for name in programs:
        if shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin") is None:
            force.missing(PART, f"needs the program {name}: tools/deps benign")


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
    name = f"{PREFIX}benign-{workload.name}-{secrets.token_hex(3)}"
    container = Container(name, bundle.write(name))
    before = stopped(guard)
    try:
        got = container.runc(
            "run",
            "--bundle",
            str(container.bundle),
            name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patience(workload.seconds),
        )
    finally:
        container.remove()
    said = got.stdout.decode(errors="replace")[-1500:]
    reported = {
        (alert["rule"]["id"], alert["outcome"], str(alert["details"])) for alert in guard.alerts(name)
    }
    assert stopped(guard) == before, f"{reported}\n{said}"
    assert got.returncode == 0, said
    assert {rule for rule, _, _ in reported} <= workload.reported, reported


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
