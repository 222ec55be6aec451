# SPDX-License-Identifier: Apache-2.0
"""The next agent of a node holds what runtimes told the one before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.conftest import Box
from tests.runtime.test_agent import NO_NAMES, personality, policy
from tests.support import force
from tests.support.agent import Agent
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root]


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Agent]]:
    """Two agents of one state directory, the first of them running; no cgroup's name means a container."""
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


def reach(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on runtimes speak to this one."""
    monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(agent.socket.with_name("enroll.sock")))


@pytest.mark.parametrize("how", ["name", "file"])
def test_a_chosen_policy_outlives_the_agent(
    agents: list[Agent], box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A container started under the first agent makes its call under the second, and dies of it."""
    first, second = agents
    reach(first, monkeypatch)
    personality(box).shell("while [ ! -e /tmp/go ]; do sleep 0.05; done; exec /bin/call >/out")
    box.write()
    chosen = "by-request" if how == "name" else str(policy(tmp_path, "of-a-file", "{containers: all}"))
    log = box.directory / "log"
    words = ["--log", str(log), "run", "--detach", "--policy", chosen, box.name]
    assert box.runtime(*words, cwd=box.directory, capture=False).returncode == 0, log.read_text()
    told = tmp_path / "state/told"
    assert any(path.name.isdecimal() for path in told.iterdir())
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
    wait_for(lambda: not any(path.name.isdecimal() for path in told.iterdir()), "its record to go")


def test_junk_in_the_state_directory_is_no_matter(agents: list[Agent], tmp_path: Path) -> None:
    """Records of cgroups that are gone, and files that are none, are passed over and removed."""
    first, second = agents
    assert first.stop() == 0
    told = tmp_path / "state/told"
    told.mkdir(exist_ok=True)
    (told / "1").write_text(
        '{"path": "/no/such", "name": "x", "enrichment": "done", "chosen": [], "facts": {}}'
    )
    (told / "2").write_text("{")
    (told / "file-abc").write_bytes(os.urandom(100))
    second.start()
    assert not (told / "1").exists()
    assert not (told / "file-abc").exists()
