# SPDX-License-Identifier: Apache-2.0
"""Changes while the agent runs: labels, policies, the API server, the scraper.

The release is in mode enforce since test_install.py, which runs first because of its name.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.chart.helm import by_kind, render
from tests.cluster.release import AGENTS, NAMESPACE, SHOP, VALUES, World, attacker, attempts
from tests.cluster.settings import NODE
from tests.prometheus.operator import labels_of, scrape_config
from tests.prometheus.rules import FILES
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.cluster]

ADDRESS = "192.0.2.1"  # RFC 5737: unused addresses
POLICY = f"""
apiVersion: ringfence.dev/v1
kind: Policy
metadata: {{name: guarded}}
spec:
  selector: {{namespaces: [rf-*], labels: {{guard: strict}}}}
  rules:
    - id: guarded-address
      title: A guarded pod asks an address that it must not
      severity: high
      attack: [T1611]
      event: network.connect
      match: {{address: {ADDRESS}/32}}
      action: deny
"""
ENFORCED: dict[str, Any] = {**VALUES, "mode": "enforce", "policies": {"extra": {"guarded.yaml": POLICY}}}


def metric(world: World, name: str) -> float:
    """Returns the sum of a metric's series, with these labels if any are given."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", world.release.metrics(), re.M)
    return sum(map(float, found))


def now(world: World, name: str, result: str) -> bool:
    """Returns True if the last ten attempts all had that result."""
    return {how for _, how in attempts(world, name)[-10:]} == {result}


def test_a_policy_follows_the_labels_of_a_running_pod(world: World) -> None:
    """kubectl label: the watch reports it, and other
    rules apply to the pod; the agent is the same.
    """
    world.release.upgrade(ENFORCED)
    world.cluster.apply(attacker("labelled", {"tier": "back"}, ADDRESS))
    world.cluster.kubectl("rollout", "status", "deployment/labelled", "--namespace", SHOP, "--timeout=2m")
    wait_for(lambda: now(world, "labelled", "through"), "a pod without the label", every=1)
    pods = ("pods", "--selector", "app=labelled", "--namespace", SHOP)
    world.cluster.kubectl("label", *pods, "guard=strict")
    wait_for(lambda: now(world, "labelled", "refused"), "the label to be followed", every=1)
    world.cluster.kubectl("label", *pods, "guard-")
    wait_for(lambda: now(world, "labelled", "through"), "its end to be followed", every=1)
    world.cluster.kubectl("label", *pods, "guard=strict")
    wait_for(lambda: now(world, "labelled", "refused"), "the label again", every=1)


def test_a_new_pod_is_under_its_namespaces_policies_within_a_second(world: World) -> None:
    """These policies select by namespace and wait for
    names; the included ones apply from the start.
    """
    world.cluster.kubectl("rollout", "restart", "deployment/web", "--namespace", SHOP)
    world.cluster.kubectl("rollout", "status", "deployment/web", "--namespace", SHOP, "--timeout=2m")
    (pod,) = (
        one for one in world.cluster.get("pods", "--selector", "app=web", "--namespace", SHOP)["items"]
        if "deletionTimestamp" not in one["metadata"]
    )  # fmt: skip
    name = f"pod/{pod['metadata']['name']}"
    wait_for(lambda: len(attempts(world, name)) > 40, "the new pod", every=0.5)
    found = attempts(world, name)
    first = next(number for number, (_, how) in enumerate(found) if how == "refused")
    assert found[first][0] - found[0][0] < 1, f"{first} attempts passed"
    assert {how for _, how in found[first:]} == {"refused"}


def test_a_changed_config_map_is_in_force_without_a_restart_and_a_broken_one_is_not(world: World) -> None:
    """helm upgrade changes only policies: the pod is
    the same one. A set with a mistake changes nothing.
    """
    pod = world.release.agent_pod()["metadata"]["uid"]
    world.release.upgrade(
        {**ENFORCED, "policies": {"extra": {"guarded.yaml": POLICY.replace("deny", "denny")}}}
    )
    wait_for(
        lambda: metric(world, "ringfence_policy_problems") > 0,
        "the mistake to be found",
        seconds=120,
        every=1,
    )
    assert metric(world, "ringfence_policy_up_to_date") == 0
    assert now(world, "labelled", "refused")
    assert now(world, "web", "refused")
    world.release.upgrade({**ENFORCED, "policies": {"extra": {}}})
    wait_for(lambda: now(world, "labelled", "through"), "the set without the rule", seconds=120, every=1)
    assert metric(world, "ringfence_policy_up_to_date") == 1
    assert now(world, "web", "refused")
    world.release.upgrade(ENFORCED)
    wait_for(lambda: now(world, "labelled", "refused"), "the rule again", seconds=120, every=1)
    assert world.release.agent_pod()["metadata"]["uid"] == pod


def test_an_api_server_that_returns_with_a_compacted_history(world: World) -> None:
    """A real 410 Gone: pods are listed again, labels
    followed again. In between, all attempts are refused.
    """
    gone = r'ringfence_pod_watch_restarts_total\{reason="gone"\}'
    before = metric(world, gone)
    for number in range(3):  # the history continues beyond what the agent has received about pods
        world.cluster.kubectl("create", "configmap", f"history-{number}", "--namespace", SHOP)
    since = attempts(world)[-1][0]
    address = world.release.agent_pod()["status"]["podIP"]
    world.cluster.stop("apiserver")
    wait_for(
        lambda: "ringfence_pod_watch_up 0.0" in _scrape(world, address),
        "the watch to end",
        every=0.5,
    )
    etcdctl = ("env", "ETCDCTL_API=3", world.cluster.programs("etcdctl"))
    status = json.loads(world.cluster.run(*etcdctl, "endpoint", "status", "--write-out", "json"))
    world.cluster.run(*etcdctl, "compact", str(status[0]["Status"]["header"]["revision"]))
    world.cluster.restart("apiserver")
    wait_for(
        lambda: "ringfence_pod_watch_up 1.0" in _scrape(world, address), "the watch", seconds=120, every=0.5
    )
    wait_for(world.cluster.is_ready, "the node", every=1)
    assert metric(world, gone) > before
    world.cluster.kubectl("label", "pods", "--selector", "app=labelled", "--namespace", SHOP, "guard-")
    wait_for(lambda: now(world, "labelled", "through"), "labels to be followed again", every=1)
    assert {how for at, how in attempts(world) if at > since} == {"refused"}


def _scrape(world: World, address: str) -> str:
    """Without the API server."""
    return world.cluster.run("curl", "--silent", "--fail", f"http://{address}:9911/metrics", check=False)


class Prometheus:
    """A real one; a file replaces its discovery (Debian's is built without Kubernetes)."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._enough = threading.Event()
        self._finder = threading.Thread(target=self._discover)
        self._targets = world.cluster.directory / "targets.json"

    def start(self) -> None:
        """With the operator's scrape configuration for the chart's PodMonitor, and the rules."""
        directory = self._world.cluster.directory
        monitor = by_kind(render({"podMonitor": {"enabled": True}}), "PodMonitor")
        scrape = {**scrape_config(monitor), "file_sd_configs": [{"files": [str(self._targets)]}]}
        config = {"rule_files": list(map(str, FILES)), "scrape_configs": [scrape]}
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._finder.start()
        argv = ["prometheus", f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/tsdb", "--web.listen-address=127.0.0.1:9090"]  # fmt: skip
        self._world.cluster.start("prometheus", argv)

    def stop(self) -> None:
        """Stop both."""
        self._enough.set()
        self._finder.join()
        self._world.cluster.stop("prometheus")

    def __call__(self, expression: str) -> list[dict[str, Any]]:
        """Returns the answer to a query; nothing while it does not answer."""
        words = ("--data-urlencode", f"query={expression}", "http://127.0.0.1:9090/api/v1/query")
        said = self._world.cluster.run("curl", "--silent", "--get", *words, check=False)
        return list(json.loads(said)["data"]["result"]) if said else []

    def _discover(self) -> None:
        """Twice a second: every agent pod that has an address, as long as the API server has it."""
        while not self._enough.wait(0.5):
            pods = self._world.cluster.get("pods", "--namespace", NAMESPACE, "--selector", AGENTS)["items"]
            found = [
                {"targets": [f"{pod['status']['podIP']}:9911"], "labels": labels_of(pod)}
                for pod in pods
                if pod["status"].get("podIP")
            ]
            part = self._targets.with_suffix(".part")
            part.write_text(json.dumps(found))
            part.rename(self._targets)


@pytest.fixture
def prometheus(world: World) -> Iterator[Prometheus]:
    """Running."""
    if shutil.which("prometheus") is None:
        pytest.fail("needs prometheus (tools/deps cluster)", pytrace=False)
    made = Prometheus(world)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_prometheus_sees_pods_by_name_and_a_roll_out_is_not_reported_as_down(
    world: World, prometheus: Prometheus
) -> None:
    """Discovery, honorLabels, the rules: RingfenceAgentDown
    does not fire when a DaemonSet is rolled out.
    """
    (up,) = wait_for(lambda: prometheus('up{job="ringfence"} == 1'), "a scrape", every=1)
    assert up["metric"]["node"] == NODE
    assert up["metric"]["agent_pod"] == world.release.agent_pod()["metadata"]["name"]
    (info,) = wait_for(lambda: prometheus('ringfence_container_info{name="web"}'), "the pod", every=1)
    assert info["metric"]["namespace"] == SHOP
    assert info["metric"]["pod"].startswith("web-")
    attempted = wait_for(lambda: prometheus("ringfence_attempts_total > 0"), "attempts", every=1)
    assert {one["metric"].get("namespace") for one in attempted} <= {SHOP, NAMESPACE, None}
    assert not [one for one in prometheus("{job='ringfence'}") if "exported_namespace" in one["metric"]]
    for revision in ("3", "4"):
        world.release.upgrade({**ENFORCED, "podAnnotations": {"revision": revision}})
        name = world.release.agent_pod()["metadata"]["name"]
        scraped = functools.partial(prometheus, f'up{{agent_pod="{name}"}} == 1')
        wait_for(scraped, "a scrape of the new agent", every=1)
    assert prometheus("ringfence:enforcing_rules:sum") is not None
    down = 'max_over_time(ALERTS{alertname="RingfenceAgentDown", alertstate="firing"}[10m])'
    fired = {one["metric"]["agent_pod"] for one in prometheus(down)}
    # The rule's guarantee: a target that is removed within 8 s of its last answer does not count
    # as down.
    for pod in fired:
        (silent,) = prometheus(f'count_over_time((up{{agent_pod="{pod}"}} == 0)[10m:1s])')
        assert float(silent["value"][1]) >= 8, pod
    denied = 'max_over_time(ALERTS{alertname="RingfenceEscapeDenied", alertstate="firing"}[10m])'
    wait_for(lambda: prometheus(denied), "an alert of what is refused all the time", every=1)
