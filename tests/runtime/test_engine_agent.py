# SPDX-License-Identifier: Apache-2.0
"""A real containerd, whose containers a real agent holds before they start: our runtime shakes hands."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.test_agent import NO_NAMES, add_call, policy
from tests.runtime.test_engines import Containerd, containerd, gone, root_tree
from tests.support import force
from tests.support.agent import Agent, running_agent
from tests.support.cgroups import PREFIX
from tests.support.waiting import wait_for

__all__ = ["containerd", "root_tree"]
pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """Started before containerd, which hands the name of its socket on to the runtime."""
    force.need_root()
    made = tmp_path / "policies"
    made.mkdir()
    policy(made, "by-request", "{names: [nobody-is-called-so]}")
    with running_agent(tmp_path / "agent", policies=[made], patterns=NO_NAMES) as running:
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
    """With it the first call is the last; without it the same container lives."""
    add_call(root_tree)
    name, status, said = start(containerd, root_tree, "ringfence.io/policy=by-request")
    assert (status, "lived" in said) == (137, False), said
    alert = agent.wait_alert("by-request-rule", name)
    assert alert["container"]["labels"]["ringfence.io/policy"] == "by-request"
    _, status, said = start(containerd, root_tree, "ringfence.io/require-agent=true")
    assert (status, said) == (0, "lived\n")


def test_what_cannot_be_held_does_not_start(agent: Agent, containerd: Containerd, root_tree: Path) -> None:
    """A policy that is not loaded; and any, once the agent is gone. The engine tells our one error."""
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
