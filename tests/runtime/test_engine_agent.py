# SPDX-License-Identifier: Apache-2.0
"""A real containerd and a real agent: this runtime enrolls the containers before they start."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.test_agent import add_call
from tests.runtime.test_engines import Containerd, containerd, gone, root_tree
from tests.support import force
from tests.support.agent import Agent
from tests.support.cgroups import PREFIX
from tests.support.enrolling import enrolling_agent
from tests.support.waiting import wait_for

__all__ = ["containerd", "root_tree"]
pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """Started before containerd, which passes the name of its socket on to the runtime."""
    force.need_root()
    with enrolling_agent(tmp_path / "agent", {"by-request": "{names: [nobody-is-called-so]}"}) as running:
        monkeypatch.setenv("RINGFENCE_ENROLL_SOCKET", str(running.socket.with_name("enroll.sock")))
        yield running


def start(containerd: Containerd, tree: Path, *annotations: str) -> tuple[str, int, str]:
    """`ctr run` of the program that makes the call: name, status and output."""
    name = f"{PREFIX}{secrets.token_hex(6)}"
    words = ["run", "--rm", "--runc-binary", str(containerd.executable), "--cgroup", f"/{name}"]
    for annotation in annotations:
        words += ["--annotation", annotation]
    got = containerd.ctr(*words, "--rootfs", str(tree), name, "/bin/call", ok=False)
    wait_for(lambda: gone(name), "the cgroups are removed")
    return name, got.returncode, got.stdout + got.stderr


def test_an_annotation_chooses_the_policy(agent: Agent, containerd: Containerd, root_tree: Path) -> None:
    """With it the first call is killed; without it the same container lives."""
    add_call(root_tree)
    name, status, said = start(containerd, root_tree, "ringfence.io/policy=by-request")
    assert (status, "lived" in said) == (137, False), said
    alert = agent.wait_alert("by-request-rule", name)
    assert alert["container"]["labels"]["ringfence.io/policy"] == "by-request"
    _, status, said = start(containerd, root_tree, "ringfence.io/require-agent=true")
    assert (status, said) == (0, "lived\n")


def test_a_container_that_cannot_be_enrolled_does_not_start(
    agent: Agent, containerd: Containerd, root_tree: Path
) -> None:
    """A policy that is not loaded; and any, once the agent
    is stopped. The engine shows the runtime's error.
    """
    add_call(root_tree)
    _, status, said = start(containerd, root_tree, "ringfence.io/policy=no-such-policy")
    assert status != 0
    assert "no policy 'no-such-policy' is loaded" in said
    agent.stop()
    _, status, said = start(containerd, root_tree, "ringfence.io/require-agent=true")
    assert status != 0
    assert "no agent listens" in said
    _, status, said = start(containerd, root_tree)
    assert (status, said) == (0, "lived\n")
