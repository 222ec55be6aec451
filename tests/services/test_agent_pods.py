# SPDX-License-Identifier: Apache-2.0
"""The real agent, a real CRI and a fake API server.

Alerts of short-lived pods have their names, and policies follow the labels.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ringfence.cli.client import request
from tests.support import force
from tests.support.agent import Agent
from tests.support.apiserver import FakeApiServer, fake_apiserver
from tests.support.cri import CriDaemon, running_cri
from tests.support.policies import user_namespace
from tests.support.receivers import Receiver, http_receiver
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.needs("containerd", "ctr", "runc", "busybox")]

POLICY = (
    user_namespace("pods", action="alert")
    + """---
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {name: labelled}
spec:
  selector: {namespaces: [rf-*], labels: {guard: strict}, images: ["registry.example/shop/*"]}
  mode: enforce
  rules:
    - id: labelled-uts
      title: A guarded pod makes a UTS namespace
      severity: high
      attack: [T1611]
      event: unshare
      match: {flags: [CLONE_NEWUTS]}
      action: alert
"""
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[CriDaemon]:
    """One for all tests of this file."""
    with running_cri(force.need_program("busybox")) as made:
        yield made


class Scene:
    """An agent that observes only containers of one namespace of the test."""

    def __init__(self, agent: Agent, fake: FakeApiServer, receiver: Receiver) -> None:
        self.agent, self.fake, self.receiver = agent, fake, receiver

    def tell(self, uid: str, name: str, labels: dict[str, str], event: str = "ADDED") -> None:
        """The API server reports a pod."""
        owner = [{"kind": "Job", "name": "nightly", "controller": True}]
        meta = {"uid": uid, "name": name, "namespace": "rf-shop", "labels": labels, "ownerReferences": owner}
        self.fake.add({"metadata": meta}, event=event)


@pytest.fixture
def scene(tmp_path: Path, daemon: CriDaemon) -> Iterator[Scene]:
    """The whole of it. Containers of CRI are named by 64 digits: the default patterns are on, and the agent
    only alerts."""
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "pods.yaml").write_text(POLICY)
    with fake_apiserver() as fake, http_receiver() as receiver:
        flags = {
            "containers-known": "yes", "cri-socket": str(daemon.socket), "kubernetes-watch": "on",
            "kubernetes-api": fake.url, "kubernetes-node": "node-1", "alerts-webhook": receiver.url,
            "alerts-queue-dir": str(tmp_path / "queue"), "alerts-repeat": "0", "alerts-burst": "1000",
        }  # fmt: skip
        agent = Agent(tmp_path / "agent", policies=[policies], mode="audit", patterns=[], flags=flags)
        try:
            agent.start()
            wait_for(lambda: fake.watches, "the watch")
            yield Scene(agent, fake, receiver)
        finally:
            agent.stop()


def test_the_first_alert_of_a_short_pod_names_it(scene: Scene, daemon: CriDaemon) -> None:
    """Its only program matches the rule and ends: the receiver gets pod, image, digest and labels."""
    for number in range(3):
        name = f"short-{number}"
        with daemon.pod(name, "rf-shop", {"app": "short"}) as pod:
            identifier = pod.run_to_its_end("job", "/bin/unshare", "-U", "true")
    wait_for(lambda: len(scene.receiver.alerts()) >= 3, "three alerts")
    sent = [one for body in scene.receiver.bodies for one in body["alerts"]]
    assert sorted(one["container"].get("pod", "") for one in sent) == ["short-0", "short-1", "short-2"]
    last = next(one for one in sent if one["container"]["id"] == identifier)["container"]
    assert (last["name"], last["namespace"], last["image"]) == (
        "job", "rf-shop", "registry.example/shop/web:1.2",
    )  # fmt: skip
    assert last["image_digest"].startswith("sha256:")
    assert last["labels"]["app"] == "short"


def burst(daemon: CriDaemon, first: int, count: int) -> dict[str, str]:
    """Pods that live for a moment, one after the other; container -> pod. With a connection of its own."""
    own = CriDaemon(daemon.directory)
    made = {}
    try:
        for number in range(first, first + count):
            with own.pod(f"burst-{number}", "rf-shop", {"app": f"app-{number}"}) as pod:
                made[pod.run_to_its_end("job", "/bin/unshare", "-U", "true")] = f"burst-{number}"
    finally:
        own.channel.close()
    return made


def test_short_pods_under_load_are_all_named_right(scene: Scene, daemon: CriDaemon) -> None:
    """Several at once, while the machine is busy: each alert has its own pod's names, and none is missing.

    RINGFENCE_PODS=200 for more of them.
    """
    workers, each = 4, max(1, int(os.environ.get("RINGFENCE_PODS", "24")) // 4)
    busy = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count() or 1)]
    try:
        with ThreadPoolExecutor(workers) as pool:
            bursts = [pool.submit(burst, daemon, n * each, each) for n in range(workers)]
            expected = {key: value for one in bursts for key, value in one.result().items()}
        wait_for(lambda: len(set(scene.receiver.alerts())) >= len(expected), "all alerts")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    sent = [one for body in scene.receiver.bodies for one in body["alerts"]]
    names = {one["container"]["id"]: one["container"].get("pod", "") for one in sent}
    assert names == expected
    labels = {one["container"]["id"]: one["container"]["labels"].get("app") for one in sent}
    assert labels == {key: value.replace("burst", "app") for key, value in expected.items()}
    assert scene.agent.metrics()["ringfence_events_unattributed_total", (("reason", "unknown"),)] == 0


def test_labels_of_the_api_server_choose_policies_and_change_them(scene: Scene, daemon: CriDaemon) -> None:
    """A label that comes later brings a policy, its removal removes it; the alert has the owner."""
    with daemon.pod("web-0", "rf-shop", {"app": "web"}) as pod:
        identifier = pod.run("web", "/bin/sleep", "600")

        def tries(marker: str) -> bool:
            # -U breaks the rule that holds for everybody: its alert comes after that of -u, if there is one
            for flag in ("-u", "-U"):
                argv = (
                    "--exec-id",
                    secrets.token_hex(4),
                    identifier,
                    "/bin/unshare",
                    flag,
                    "/bin/echo",
                    marker,
                )
                daemon.ctr("tasks", "exec", *argv, check=False)
            wait_for(lambda: marker in reported(scene.agent, "pods-user-namespace"), "the last alert")
            return marker in reported(scene.agent, "labelled-uts")

        scene.tell(pod.uid, "web-0", {"app": "web"})
        wait_for(lambda: known(scene.agent, identifier), "the container's names")
        assert not tries("before")
        scene.tell(pod.uid, "web-0", {"app": "web", "guard": "strict"}, event="MODIFIED")
        wait_for(lambda: tries(secrets.token_hex(4)), "the policy of the label", every=0.3)
        alert = scene.agent.alerts(rule="labelled-uts")[-1]
        assert alert["container"]["owner"] == "Job/nightly"
        assert alert["container"]["labels"]["guard"] == "strict"
        scene.tell(pod.uid, "web-0", {"app": "web"}, event="MODIFIED")
        wait_for(lambda: not tries(secrets.token_hex(4)), "the policy to go", every=0.3)


def reported(agent: Agent, rule: str) -> list[str]:
    """Returns the last arguments of the programs in this rule's alerts."""
    return [one["process"]["args"][-1] for one in agent.alerts(rule=rule) if one["process"]["args"]]


def known(agent: Agent, identifier: str) -> bool:
    """Returns True if the agent knows that container's pod."""
    rows = request(agent.socket, "top")["containers"]
    return any(row["id"] == identifier and row["pod"] == "web-0" for row in rows)


def test_without_an_api_server_everything_but_new_labels_is_known(tmp_path: Path, daemon: CriDaemon) -> None:
    """It is configured, but nothing listens there: the agent works, and logs it."""
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "pods.yaml").write_text(POLICY)
    flags = {
        "containers-known": "yes", "cri-socket": str(daemon.socket), "kubernetes-watch": "on",
        "kubernetes-api": "http://127.0.0.1:9",
    }  # fmt: skip
    agent = Agent(tmp_path / "agent", policies=[policies], mode="audit", patterns=[], flags=flags)
    try:
        agent.start()
        with daemon.pod("alone", "rf-shop", {"guard": "strict"}) as pod:
            identifier = pod.run("web", "/bin/sleep", "600")

            def named() -> bool:
                rows = request(agent.socket, "top")["containers"]
                return any(row["id"] == identifier and row["pod"] == "alone" for row in rows)

            wait_for(named, "the pod's name")
            daemon.ctr(
                "tasks", "exec", "--exec-id", "x", identifier, "/bin/unshare", "-u", "true", check=False
            )
            agent.wait_alert("labelled-uts", identifier, seconds=10)
        assert agent.metrics()["ringfence_pod_watch_up", ()] == 0
        assert "pods are not followed" in agent.log.read_text()
    finally:
        agent.stop()
