# SPDX-License-Identifier: Apache-2.0
"""The next agent of a node restores the enrolments that runtimes made with the previous one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.test_agent import personality
from tests.support import force
from tests.support.agent import Agent
from tests.support.enrolling import NO_NAMES, policy
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root]


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Agent]]:
    """Two agents of one state directory, the first of them running; cgroup names do not match."""
    force.need_root()
    directory = tmp_path / "policies"
    directory.mkdir()
    policy(directory, "by-request", "{names: [nobody-is-called-so]}")
    flags = {"containers-adopt": "yes", "state-dir": str(tmp_path / "state")}
    made = [
        Agent(tmp_path / name, policies=[directory], patterns=NO_NAMES, flags=flags)
        for name in ("one", "two")
    ]
    made[0].start()
    yield made
    for agent in made:
        agent.stop()


def use_agent(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on runtimes connect to this agent."""
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(agent.socket.with_name("enroll.sock")))


@pytest.mark.parametrize("how", ["name", "file"])
def test_a_chosen_policy_survives_the_agent(
    agents: list[Agent], box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A container started under the first agent makes its call under the second, and is killed."""
    first, second = agents
    use_agent(first, monkeypatch)
    personality(box).shell("while [ ! -e /tmp/go ]; do sleep 0.05; done; exec /bin/call >/out")
    box.write()
    chosen = "by-request" if how == "name" else str(policy(tmp_path, "of-a-file", "{containers: all}"))
    log = box.directory / "log"
    words = ["--log", str(log), "run", "--detach", "--policy", chosen, box.name]
    assert box.runtime(*words, cwd=box.directory, capture=False).returncode == 0, log.read_text()
    records = tmp_path / "state/told"
    assert any(path.name.isdecimal() for path in records.iterdir())
    assert first.stop() == 0
    second.start()
    count = 2 if how == "file" else 1

    def loaded() -> bool:
        value = second.metrics().get(("ringfence_policies", ()), 0)
        return value >= count or count == 1

    wait_for(loaded, "the file's policy to be in force")
    assert box.exec("/bin/touch", "/tmp/go").returncode == 0
    rule = "by-request-rule" if how == "name" else "of-a-file-rule"
    alert = second.wait_alert(rule, box.name)
    assert alert["container"]["id"] == box.name
    box.wait("stopped")
    assert not (box.rootfs / "out").read_text()
    assert box.do("delete", "--force").returncode == 0
    wait_for(lambda: not any(path.name.isdecimal() for path in records.iterdir()), "its record to be removed")


def test_invalid_files_in_the_state_directory_are_removed(agents: list[Agent], tmp_path: Path) -> None:
    """Records of removed cgroups, and invalid files, are skipped and removed."""
    first, second = agents
    assert first.stop() == 0
    records = tmp_path / "state/told"
    records.mkdir(exist_ok=True)
    (records / "1").write_text(
        '{"path": "/no/such", "name": "x", "enrichment": "done", "chosen": [], "facts": {}}'
    )
    (records / "2").write_text("{")
    (records / "file-abc").write_bytes(os.urandom(100))
    second.start()
    assert not (records / "1").exists()
    assert not (records / "file-abc").exists()
