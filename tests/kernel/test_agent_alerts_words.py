# SPDX-License-Identifier: Apache-2.0
"""The real agent and a real container: an alert says what was tried, with the paths of the call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agent import Agent
from tests.support.container import Bundle, Container, new_container
from tests.support.force import need_program
from tests.support.policies import one_rule, written
from tests.support.scenes import agent_fixture

pytestmark = pytest.mark.root
LABEL = "words"  # in the names of this test's cgroups: another test's agent must not enroll them
MOUNTS = one_rule(
    "mounts",
    "{id: words-mount, title: x, severity: high, attack: [T1611], event: mount, match: {fstype: ext4},"
    " action: kill}",
)
MODES = one_rule(
    "modes",
    "{id: words-chmod, title: x, severity: high, attack: [T1548], event: chmod,"
    " match: {mode: setuid}, action: alert}",
)


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A mount is killed, a chmod only reported."""
    return written(tmp_path, MOUNTS, MODES)


agent = agent_fixture(LABEL)


@pytest.fixture
def container(agent: Agent, bundle: Bundle) -> Iterator[Container]:
    """A runc container that is created while the agent runs."""
    need_program("runc")
    bundle.add_mount("/tmp", "tmpfs")
    with new_container(bundle, LABEL) as made:
        yield made


def test_a_mount_is_described_with_source_target_and_type(agent: Agent, container: Container) -> None:
    """As the container wrote them, terminal escapes made harmless. busybox adds MS_SILENT."""
    assert container.exec("mount", "-t", "ext4", "/dev/sda1\x1b[2J", "/tmp").returncode != 0
    alert = agent.wait_alert("words-mount", container.name)
    assert alert["tried"] == r"mount /dev/sda1\x1b[2J at /tmp type ext4 with MS_SILENT"
    named = {name: alert["details"][name] for name in ("source", "target", "fstype")}
    assert named == {"source": r"/dev/sda1\x1b[2J", "target": "/tmp", "fstype": "ext4"}
    assert "notes" not in alert


def test_a_chmod_is_described_with_mode_and_path(agent: Agent, container: Container) -> None:
    """The mode in octal, as chmod(1) takes it."""
    made = container.exec("sh", "-c", "echo > /tmp/x && chmod u+s /tmp/x")
    assert made.returncode == 0
    alert = agent.wait_alert("words-chmod", container.name)
    assert alert["tried"] == "chmod 04644 /tmp/x"
    assert (alert["details"]["mode"], alert["details"]["path"]) == ("04644", "/tmp/x")
