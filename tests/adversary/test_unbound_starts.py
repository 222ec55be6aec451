# SPDX-License-Identifier: Apache-2.0
"""Benign twins of test_unbound: starts by real runtimes while agents start, with the whole pack."""

from __future__ import annotations

import os
import secrets
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ringfence.bpf.settings import KernelSettings
from tests.support import force
from tests.support.agent import running_agent
from tests.support.cgroups import PREFIX, Cgroup, is_pure_v2
from tests.support.container import Bundle
from tests.support.policies import PACK
from tests.support.waiting import patience, wait_for

pytestmark = pytest.mark.root
STARTS = int(os.environ.get("RINGFENCE_STARTS_DURING", "6"))
GRACE = KernelSettings().grace_ms / 1000
FLAGS = {"containers-adopt": "yes"}


@pytest.fixture(params=["runc", "crun"])
def runtime(request: pytest.FixtureRequest) -> str:
    """A runtime that works here."""
    force.need_root()
    if request.param == "crun" and not is_pure_v2():
        force.elsewhere("crun refuses hybrid hosts")
    return force.need_program(request.param)


class Churn:
    """Agents that start and stop without pause, in a thread."""

    def __init__(self, directory: Path) -> None:
        self.started = 0
        self._directory, self._done = directory, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Churn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            directory = self._directory / str(self.started)
            with running_agent(directory, policies=[PACK], flags=FLAGS):
                self.started += 1


def run(runtime: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [runtime, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience(60), check=False,
    )  # fmt: skip


def bundle_of(directory: Path, rootfs: Path, name: str, *argv: str) -> str:
    """Write a bundle that runs `argv`."""
    bundle = Bundle(directory, rootfs)
    bundle.config["process"]["args"] = list(argv)
    return str(bundle.write(name))


def test_no_start_fails_while_agents_start(runtime: str, rootfs: Path, tmp_path: Path) -> None:
    """Whatever a runtime does at the moment at which an agent looks at it."""
    failed = []
    with Churn(tmp_path / "agents") as churn:
        for _ in range(STARTS):
            name = f"{PREFIX}starts-{secrets.token_hex(3)}"
            done = run(runtime, "run", "--bundle", bundle_of(tmp_path, rootfs, name, "/bin/true"), name)
            Cgroup(name).remove()
            if done.returncode:
                failed.append(done.stderr)
    assert churn.started
    assert failed == []


@pytest.mark.parametrize("adopt", ["yes", "no"])
def test_the_first_container_may_have_slow_hooks(
    adopt: str, runtime: str, rootfs: Path, tmp_path: Path
) -> None:
    """Its init waits for them in the host's root, for longer than it may take after that."""
    name = f"{PREFIX}starts-{secrets.token_hex(3)}"
    bundle = Bundle(tmp_path, rootfs)
    bundle.config["process"]["args"] = ["/bin/true"]
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", str(GRACE * 2)]}]}
    with running_agent(tmp_path / "agent", policies=[PACK], flags={"containers-adopt": adopt}) as agent:
        time.sleep(2)  # what enters within a second counts as older than the agent
        done = run(runtime, "run", "--bundle", str(bundle.write(name)), name)
        Cgroup(name).remove()
        assert (done.returncode, done.stderr) == (0, "")
        assert agent.alerts() == []


def test_a_created_container_may_be_started_late(runtime: str, rootfs: Path, tmp_path: Path) -> None:
    """Its init waits outside of the host's root for longer than a runtime usually does."""
    name = f"{PREFIX}starts-{secrets.token_hex(3)}"
    (tmp_path / "out").mkdir()
    bundle = Bundle(tmp_path, rootfs)
    bundle.bind(tmp_path / "out", "/out")
    bundle.config["process"]["args"] = ["/bin/touch", "/out/ran"]
    with running_agent(tmp_path / "agent", policies=[PACK], flags=FLAGS) as agent:
        created = subprocess.run(
            [runtime, "create", "--bundle", str(bundle.write(name)), name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert created.returncode == 0
        try:
            wait_for(
                lambda: agent.metrics().get(("ringfence_armed_tasks", ())), "its init to be armed as it is",
                seconds=GRACE + 20,
            )  # fmt: skip
            time.sleep(0.5)
            assert run(runtime, "start", name).returncode == 0
            wait_for((tmp_path / "out/ran").exists, "its program to run")
        finally:
            run(runtime, "delete", "--force", name)
            Cgroup(name).remove()
        assert agent.alerts() == []
