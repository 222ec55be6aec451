# SPDX-License-Identifier: Apache-2.0
"""`helm install` on a real API server, and the
agent's function there. The tests run in this order.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.cluster.release import NAMESPACE, SHOP, VALUES, World, attempts
from tests.cluster.settings import NODE, TAINT
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.cluster]

RULE = "cloud-metadata"


def alerts_of(world: World, pod: str) -> list[dict[str, Any]]:
    """Returns the rule's alerts for this pod, named at once or by a later record."""
    records = world.release.log()
    named = {id for one in records if one["kind"] == "identity" for id in one.get("alerts", [])}
    return [
        one for one in records
        if one["kind"] == "alert" and one["rule"]["id"] == RULE
        and (one["container"].get("pod") == pod or one["id"] in named)
    ]  # fmt: skip


def test_helm_installs_it_and_a_pod_waited_for_the_agent(world: World) -> None:
    """The taint is removed, the pod that waited for it runs, and the agent is ready on the node."""
    assert world.pending == "Pending"
    pod = world.release.agent_pod()
    assert pod["spec"]["nodeName"] == NODE
    assert [one["status"] for one in pod["status"]["conditions"] if one["type"] == "Ready"] == ["True"]
    wait_for(lambda: not _taints(world), "the start-up taint to go", every=0.5)
    world.cluster.kubectl("rollout", "status", "deployment/web", "--namespace", SHOP, "--timeout=2m")


def _taints(world: World) -> list[str]:
    found = world.cluster.get("nodes", NODE)["spec"].get("taints", [])
    return [one["key"] for one in found if one["key"] == TAINT]


def test_its_account_has_only_the_charts_permissions(world: World) -> None:
    """Checked with the API server's own authorizer."""
    account = f"system:serviceaccount:{NAMESPACE}:rf-ringfence"

    def may(*words: str) -> bool:
        said = world.cluster.kubectl(
            "auth", "can-i", *words, "--as", account, "--all-namespaces", check=False
        )
        return said.strip() == "yes"

    assert may("list", "pods")
    assert may("watch", "pods")
    assert may("get", "nodes")
    assert may("patch", "nodes")  # every node: docs/reference/kubernetes.md, the start-up taint
    for words in (
        "get secrets", "list secrets", "get pods", "delete pods", "create pods",
        "create pods --subresource=exec", "update nodes", "list nodes", "patch nodes --subresource=status",
        "get configmaps", "create tokenreviews", "patch daemonsets", "impersonate users",
    ):  # fmt: skip
        assert not may(*words.split()), words


def test_the_charts_own_test_passes(world: World) -> None:
    """`helm test` in mode audit: the pod's own alert is counted, and the call was allowed."""
    said = world.release.helm("test", "rf", "--logs")
    assert "Phase:          Succeeded" in said or "Succeeded" in said
    assert "the attack was allowed" in said
    assert "an alert of this pod was counted (would-deny): ok" in said


def test_an_alert_names_pod_owner_image_and_node(world: World) -> None:
    """Of a Deployment's pod, from CRI and API server together."""
    (pod,) = world.cluster.get("pods", "--namespace", SHOP, "--selector", "app=web")["items"]
    name = pod["metadata"]["name"]
    alert = wait_for(lambda: next(iter(alerts_of(world, name)), None), "an alert of it", every=1)
    container = alert["container"]
    assert container["namespace"] == SHOP
    assert container["pod"] == name
    assert container["pod_uid"] == pod["metadata"]["uid"]
    assert container["name"] == "web"
    assert container["owner"] == "Deployment/web"
    assert container["labels"]["tier"] == "front"
    assert container["image"].endswith("/ringfence:test")
    assert alert["node"] == NODE
    assert alert["outcome"] == "would-deny"
    assert pod["status"]["containerStatuses"][0]["containerID"] == f"containerd://{container['id']}"


def test_enforcement_starts_under_attack_and_then_refuses_every_attempt(
    world: World,
) -> None:
    """helm upgrade to mode enforce, while the pod attacks twenty times a second."""
    assert {result for _, result in attempts(world)} == {"through"}
    world.release.upgrade({**VALUES, "mode": "enforce"})
    refused = wait_for(lambda: [at for at, how in attempts(world) if how == "refused"], "a refusal", every=1)
    assert {how for at, how in attempts(world) if at >= refused[0]} == {"refused"}
    said = world.release.helm("test", "rf", "--logs")
    assert "the attack was refused" in said
    assert "an alert of this pod was counted (denied): ok" in said


def test_a_roll_out_has_no_unguarded_moment(world: World) -> None:
    """A new DaemonSet revision: one agent ends, the
    next starts; the pinned programs refuse in between.
    """
    before = attempts(world)[-1][0]
    old = world.release.agent_pod()["metadata"]["name"]
    world.release.upgrade({**VALUES, "mode": "enforce", "podAnnotations": {"revision": "2"}})
    assert world.release.agent_pod()["metadata"]["name"] != old

    def later() -> list[str]:
        return [how for at, how in attempts(world) if at > before]

    wait_for(lambda: len(later()) > 100, "a hundred attempts", every=1)
    since = later()
    assert set(since) == {"refused"}, f"{len(since)} attempts"


def test_a_killed_agent_leaves_no_unguarded_moment_and_is_restarted(world: World) -> None:
    """The container of the pod is killed; the kubelet restarts it."""
    pod = world.release.agent_pod()
    before = attempts(world)[-1][0]
    (status,) = pod["status"]["containerStatuses"]
    world.cluster.ctr(
        "tasks", "kill", "--signal", "KILL", status["containerID"].removeprefix("containerd://")
    )

    def back() -> bool:
        (now,) = world.release.agent_pod()["status"]["containerStatuses"]
        return bool(now["restartCount"] > status["restartCount"] and now["ready"])

    wait_for(back, "the agent to be started again", seconds=120, every=1)
    since = [how for at, how in attempts(world) if at > before]
    assert len(since) > 20
    assert set(since) == {"refused"}


def test_the_state_of_the_release_is_shown(world: World) -> None:
    """helm shows NOTES.txt, and the commands in it work."""
    notes = json.loads(world.release.helm("status", "rf", "--output", "json"))["info"]["notes"]
    assert "mode enforce" in notes
    inside = ("exec", "--namespace", NAMESPACE, "daemonset/rf-ringfence", "--", "ringfence")
    assert "CAP_BPF" in world.cluster.kubectl(*inside, "probe")
    assert "enforce" in world.cluster.kubectl(*inside, "status")
