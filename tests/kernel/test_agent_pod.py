# SPDX-License-Identifier: Apache-2.0
"""An agent that is itself a container, as in a pod: its own mounts, in an ordinary container's
cgroup.

Processes beside it there (`kubectl exec`, the compiler of custom probes) belong to the agent, in
both modes. A process that enters its cgroup from another container stays that container's.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.escape.program import build, read_attempt
from tests.support.agent import Agent
from tests.support.cgroups import Cgroup, new_cgroup
from tests.support.policies import PACK, USERNS
from tests.support.probes import need_bcc, place_example, wait_running
from tests.support.waiting import patience

pytestmark = pytest.mark.root

ATTACK = "unshare 0x10000000"


@pytest.fixture
def home() -> Iterator[Cgroup]:
    """The cgroup of the agent's own container."""
    with new_cgroup("pod") as made:
        yield made


def started(home: Cgroup, directory: Path, mode: str, *, pack: Path = PACK, **more: str) -> Agent:
    """An agent in that container, ready."""
    flags = {"containers-adopt": "yes", "canary": "yes"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    made = Agent(directory, policies=[pack], mode=mode, flags=flags)
    made.argv = home.command(made.argv)
    made.start()
    return made


@pytest.fixture(params=["enforce", "audit"])
def agent(request: pytest.FixtureRequest, home: Cgroup, tmp_path: Path) -> Iterator[Agent]:
    """In each mode."""
    made = started(home, tmp_path / "agent", request.param)
    try:
        yield made
    finally:
        assert made.stop() == 0


def attack(cgroup: Cgroup, *before: str) -> bool:
    """Make one attempt. Returns True if it was stopped."""
    done = cgroup.run([*before, str(build()), *ATTACK.split()], stdout=subprocess.PIPE, text=True)
    attempt = read_attempt(done.returncode, done.stdout)
    assert attempt.tried, done
    return attempt.killed or attempt.refused


@pytest.mark.parametrize("command", ["probe", "status", "audit"])
def test_commands_in_the_agents_container_are_not_restricted(
    agent: Agent, home: Cgroup, command: str
) -> None:
    """`kubectl exec ds/ringfence -- ringfence probe`
    calls bpf(2), reads all of /proc, and is not killed.
    """
    argv = [sys.executable, "-m", "ringfence", command]
    if command == "status":
        argv += ["--socket", str(agent.socket)]
    done = home.run(argv, capture_output=True, text=True, timeout=patience(60))
    assert done.returncode in ((0, 1) if command == "audit" else (0,)), done.stderr
    assert done.stdout
    with new_cgroup("other") as other:
        assert attack(other) is (agent.argv[agent.argv.index("--mode") + 1] == "enforce")
        agent.wait_alert("userns-create", other.name)
    assert {alert["container"]["id"] for alert in agent.alerts()} == {other.name}


def test_a_process_entering_from_another_container_stays_restricted(home: Cgroup, tmp_path: Path) -> None:
    """A privileged container writes itself into the agent's cgroup and gains nothing.

    Without the included rule and the self-defence, which already stop that write.
    """
    join = "".join(f"echo $$ > {path}/cgroup.procs; " for path in sorted(set(home.paths.values())))
    policy = tmp_path / "policy.yaml"
    policy.write_text(USERNS)
    agent = started(home, tmp_path / "agent", "enforce", pack=policy, self_defence="off")
    try:
        with new_cgroup("other") as other:
            assert attack(other, "sh", "-c", join + 'exec "$@"', "sh")
            alert = agent.wait_alert("userns-create", other.name)
            assert alert["outcome"] in ("killed", "denied")
            agent.wait_record(lambda one: one["event"] == "cgroup.attach", "its move")
    finally:
        assert agent.stop() == 0


def test_a_custom_probe_is_compiled_in_the_agents_container(home: Cgroup, tmp_path: Path) -> None:
    """bcc runs in a process of its own, which calls bpf(2) and perf_event_open(2)."""
    need_bcc()
    place_example("run-queue-latency", tmp_path / "probes")
    agent = started(home, tmp_path / "agent", "enforce", probes_directory=str(tmp_path / "probes"))
    try:
        wait_running(agent, "run-queue-latency")
        assert not agent.alerts(), agent.alerts()[0]["details"]
    finally:
        assert agent.stop() == 0
