# SPDX-License-Identifier: Apache-2.0
"""`ringfence run` with a real agent and with the default seccomp profile."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.test_agent import add_call
from tests.support import force
from tests.support.agent import Agent
from tests.support.cgroups import PREFIX
from tests.support.container import make_rootfs
from tests.support.enrolling import enrolling_agent, policy
from tests.support.waiting import patience

pytestmark = [pytest.mark.root]

CALL = ("/bin/call",)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root filesystem."""
    force.need_root()
    made = make_rootfs(tmp_path_factory.mktemp("root") / "rootfs", busybox=force.need_program("busybox"))
    add_call(made)
    return made


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    """An agent with a policy for labelled containers."""
    force.need_root()
    selectors = {"for-front": "{labels: {tier: front}}", "for-nobody": "{names: [nobody-is-called-so]}"}
    with enrolling_agent(tmp_path_factory.mktemp("agent"), selectors) as running:
        yield running


class Front:
    """`ringfence run` with private directories."""

    def __init__(self, directory: Path, tree: Path) -> None:
        self.directory, self.tree = directory, tree
        self.environment = dict(os.environ)

    def __call__(self, *options: str, words: tuple[str, ...]) -> tuple[str, subprocess.CompletedProcess[str]]:
        """Run a sandbox. Returns its name and the completed process."""
        name = f"{PREFIX}{secrets.token_hex(4)}"
        return self.bare("--name", name, *options, "--rootfs", str(self.tree), *words)

    def bare(self, *options: str) -> tuple[str, subprocess.CompletedProcess[str]]:
        """Run with these options only; the name is the word after --name."""
        command = [sys.executable, "-m", "ringfence", "run"]
        command += ["--state-root", f"{self.directory}/state", "--image-root", f"{self.directory}/images"]
        got = subprocess.run(
            [*command, *options], capture_output=True, text=True, check=False, env=self.environment,
            timeout=patience(60), stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return options[1], got


@pytest.fixture
def front(tmp_path: Path, tree: Path) -> Front:
    """Without an agent."""
    made = Front(tmp_path, tree)
    made.environment["RINGFENCE_ENROLL_SOCKET"] = str(tmp_path / "nobody.sock")
    return made


@pytest.fixture
def with_agent(front: Front, agent: Agent) -> Front:
    """With an agent."""
    front.environment["RINGFENCE_ENROLL_SOCKET"] = str(agent.socket.with_name("enroll.sock"))
    return front


def test_the_agent_knows_a_sandbox_by_its_name(with_agent: Front, agent: Agent) -> None:
    """Labels select policies from the first instruction, and the alert has the sandbox's name."""
    name, got = with_agent("--label", "tier=front", "--security-opt", "seccomp=unconfined", words=CALL)
    assert (got.returncode, got.stdout) == (137, ""), got.stderr
    container = agent.wait_alert("for-front-rule", name)["container"]
    assert (container["name"], container["runtime"]) == (name, "ringfence")
    assert container["labels"]["tier"] == "front"


def test_policies_by_name_and_by_file_apply_to_one_sandbox(
    with_agent: Front, agent: Agent, tmp_path: Path
) -> None:
    """And to no other."""
    open_ = ("--security-opt", "seccomp=unconfined")
    file = policy(tmp_path, "of-a-file", "{containers: all}")
    for given in ("for-nobody", str(file)):
        _, got = with_agent("--require-agent", "--policy", given, *open_, words=CALL)
        assert (got.returncode, got.stdout) == (137, ""), got.stderr
    name, got = with_agent("--require-agent", *open_, words=CALL)
    assert (got.returncode, got.stdout) == (0, "lived\n"), got.stderr
    assert not agent.alerts(name)


def test_a_required_but_missing_agent_leaves_nothing(front: Front) -> None:
    """One error of two lines; no cgroup, no state."""
    name, got = front("--require-agent", words=("true",))
    assert got.returncode == 125 or got.returncode == 1, got.stderr
    assert "no agent listens" in got.stderr
    top = Path("/sys/fs/cgroup")
    assert not [path for path in (top, *top.glob("*")) if list(path.glob(f"*{name}*"))]
    assert not list(front.directory.rglob(f"{name}*"))


def test_the_default_profile_is_on(front: Front) -> None:
    """A sandbox without options cannot change its execution domain; unconfined it can."""
    _, got = front(words=CALL)
    assert (got.returncode, got.stdout) == (1, "refused\n"), got.stderr
    _, got = front("--security-opt", "seccomp=unconfined", words=CALL)
    assert (got.returncode, got.stdout) == (0, "lived\n"), got.stderr
