# SPDX-License-Identifier: Apache-2.0
"""The real agent and a receiver: alerts arrive, wait
while the receiver is down, and survive the agent.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.agent import Agent, free_port
from tests.support.cgroups import PREFIX, Cgroup, new_cgroup
from tests.support.policies import user_namespace
from tests.support.receivers import Receiver, http_receiver
from tests.support.waiting import wait_for

pytestmark = pytest.mark.root

LABEL = "out"


def agent_with(directory: Path, port: int) -> Agent:
    """An agent that sends to that port of 127.0.0.1, and does not wait for names."""
    policies = directory / "policies"
    policies.mkdir(exist_ok=True)
    (policies / "out.yaml").write_text(user_namespace("out"))
    flags = {
        "alerts-webhook": f"http://127.0.0.1:{port}/hook", "alerts-queue-dir": str(directory / "queue"),
        "alerts-identity-wait": "100", "alerts-repeat": "0", "alerts-burst": "100", "alerts-timeout": "2",
        "kubernetes-node": "node-1",
    }  # fmt: skip
    patterns = [f"{PREFIX}{LABEL}-*"]
    return Agent(directory / "agent", policies=[policies], mode="policy", patterns=patterns, flags=flags)


def forbidden(cgroup: Cgroup, secret: str = "hunter2") -> None:
    """Do what the policy kills for, with a secret in the arguments."""
    argv = ["unshare", "--user", "env", f"PASSWORD={secret}"]
    assert cgroup.run(argv).returncode == -signal.SIGKILL


def ids(agent: Agent) -> list[str]:
    """Returns the ids of the alerts that the agent wrote as lines."""
    return [record["id"] for record in agent.alerts(rule="out-user-namespace")]


def delivered(agent: Agent) -> list[float]:
    """Returns the number of alerts that each receiver accepted."""
    return [n for (name, _), n in agent.metrics().items() if name == "ringfence_receiver_sent_total"]


def queued(directory: Path) -> str:
    """Returns the contents of the queue files."""
    return "".join(path.read_text(errors="replace") for path in directory.glob("queue/*/*.seg"))


def wait_all(receiver: Receiver, wanted: list[str]) -> None:
    """Wait until the receiver has these alerts."""
    wait_for(lambda: set(wanted) <= set(receiver.alerts()), "every alert to arrive")


def test_alerts_arrive_complete_and_without_secrets(tmp_path: Path) -> None:
    """The receiver gets the content of the line; the metric counts it."""
    with http_receiver() as receiver:
        agent = agent_with(tmp_path, int(receiver.url.split(":")[2].split("/")[0]))
        try:
            agent.start()
            with new_cgroup(LABEL) as cgroup:
                forbidden(cgroup)
                agent.wait_alert("out-user-namespace", cgroup.name)
            wait_all(receiver, ids(agent))
            [sent] = receiver.bodies[0]["alerts"]
            [line] = agent.alerts(rule="out-user-namespace")
            assert sent["container"]["id"] == cgroup.name
            assert (sent["node"], line["node"]) == ("node-1", "node-1")
            assert {k: sent[k] for k in ("id", "rule", "outcome", "mechanism", "process", "allow")} == {
                k: line[k] for k in ("id", "rule", "outcome", "mechanism", "process", "allow")
            }
            assert sent["process"]["args"][-1] == "PASSWORD=[redacted]"
            # The agent counts it once it has read the answer.
            wait_for(lambda: delivered(agent) == [1], "the metric")
        finally:
            agent.stop()


def test_alerts_outlive_the_agent_while_the_receiver_is_away(tmp_path: Path) -> None:
    """The receiver is down, the agent is killed with
    SIGKILL, another one starts, the receiver returns.
    """
    port = free_port()
    first = agent_with(tmp_path, port)
    try:
        first.start()
        for _ in range(5):
            with new_cgroup(LABEL) as cgroup:
                forbidden(cgroup)
                first.wait_alert("out-user-namespace", cgroup.name)
        wait_for(lambda: all(one in queued(tmp_path) for one in ids(first)), "all to be queued")
        os.kill(first.pid, signal.SIGKILL)
    finally:
        first.stop()
    second = agent_with(tmp_path, port)
    try:
        second.start()
        with http_receiver(port) as receiver:
            with new_cgroup(LABEL) as cgroup:
                forbidden(cgroup)
                second.wait_alert("out-user-namespace", cgroup.name)
            wait_all(receiver, ids(first) + ids(second))
            assert len(ids(first)) == 5
    finally:
        second.stop()


def test_a_receiver_that_hangs_delays_nothing_else(tmp_path: Path) -> None:
    """Lines are as fast as without it, and the agent stops in time."""
    with http_receiver() as receiver:
        receiver.delay = 60.0
        agent = agent_with(tmp_path, int(receiver.url.split(":")[2].split("/")[0]))
        try:
            agent.start()
            for _ in range(5):
                with new_cgroup(LABEL) as cgroup:
                    forbidden(cgroup)
                    agent.wait_alert("out-user-namespace", cgroup.name)
            wait_for(lambda: receiver.requests, "the receiver to be asked")
        finally:
            assert agent.stop(8.0) == 0
