# SPDX-License-Identifier: Apache-2.0
"""The chart as it is installed here, and workloads beside it.

Two things are changed in a copy of the chart. Its `kubeVersion` (1.25) is removed: the newest
Kubernetes with server sources in Debian is 1.20. And its policies select the namespaces
of the test instead of all containers: agents enroll by cgroup names, and other containers on this
machine must not be affected. The usermode helpers that the kernel may run
(policies/invariants.yaml) can only be set for the whole machine, and are removed.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.chart.helm import CHART, helm
from tests.cluster.node import Cluster
from tests.image.build import REFERENCE

__all__ = ["AGENTS", "NAMESPACE", "SHOP", "VALUES", "Release", "World", "attacker", "attempts"]

NAMESPACE, SHOP = "rf-security", "rf-shop"
AGENTS = "app.kubernetes.io/component=agent"
VALUES: dict[str, Any] = {
    "mode": "audit",
    "image": {"repository": REFERENCE.rpartition(":")[0], "tag": REFERENCE.rpartition(":")[2]},
    "startupTaint": {"enabled": True},
    "podMonitor": {"enabled": False},
    "config": {"audit": {"interval": 0}, "alerts": {"repeat": 0, "rate": 100000, "burst": 1000}},
}
METADATA = "169.254.169.254"
#: connects to an address twenty times a second (UDP: no packet is sent), and prints each result
LOOP = """
import os, socket, time
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((os.environ["ADDRESS"], 80))
            result = "through"
        except PermissionError:
            result = "refused"
        except OSError as error:
            result = "failed: " + str(error)
    print(round(time.time(), 3), result, flush=True)
    time.sleep(0.05)
"""


class Release:
    """One release of the chart, by helm."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.chart = cluster.directory / "chart"
        shutil.copytree(CHART, self.chart)
        about = yaml.safe_load((self.chart / "Chart.yaml").read_text())
        del about["kubeVersion"]
        (self.chart / "Chart.yaml").write_text(yaml.safe_dump(about))
        (self.chart / "policies/invariants.yaml").unlink()
        for path in (self.chart / "policies").glob("*.yaml"):
            text = path.read_text()
            assert "    containers: all\n" in text, path
            path.write_text(text.replace("    containers: all\n", "    namespaces: [rf-*]\n"))

    def helm(self, *words: str, check: bool = True, seconds: float = 300) -> str:
        """Run a helm command on the cluster."""
        config = ["--kubeconfig", self.cluster.pki.path("admin.kubeconfig"), "--namespace", NAMESPACE]
        environment = ["env", f"HOME={self.cluster.directory}"]
        return self.cluster.run(*environment, helm(), *words, *config, check=check, seconds=seconds)

    def install(self, values: dict[str, Any], command: str = "install") -> str:
        """Install or upgrade, and wait until every agent is ready."""
        file: Path = self.cluster.directory / "values.json"
        file.write_text(json.dumps(values))
        return self.helm(command, "rf", str(self.chart), "--values", str(file), "--wait", "--timeout", "4m")

    def upgrade(self, values: dict[str, Any]) -> str:
        """The same release, with other values."""
        said = self.install(values, "upgrade")
        self.cluster.kubectl(
            "rollout", "status", "daemonset/rf-ringfence", "--namespace", NAMESPACE, "--timeout=4m"
        )
        return said

    def agent_pod(self) -> dict[str, Any]:
        """Returns the one agent that is not terminating."""
        found = self.cluster.get("pods", "--namespace", NAMESPACE, "--selector", AGENTS)["items"]
        (pod,) = (one for one in found if "deletionTimestamp" not in one["metadata"])
        return dict(pod)

    def log(self, *words: str) -> list[dict[str, Any]]:
        """Returns the alerts that the agent reported."""
        text = self.cluster.kubectl(
            "logs", self.agent_pod()["metadata"]["name"], "--namespace", NAMESPACE, *words
        )
        lines = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
        return [one for one in lines if one.get("kind") in ("alert", "identity")]

    def metrics(self) -> str:
        """Returns the agent's metrics."""
        address = self.agent_pod()["status"]["podIP"]
        return self.cluster.run("curl", "--silent", "--fail", f"http://{address}:9911/metrics")


class World(NamedTuple):
    """Objects that the tests share."""

    cluster: Cluster
    release: Release
    pending: str  # phase of a pod that existed before the first agent


def attempts(world: World, name: str = "web") -> list[tuple[float, str]]:
    """Returns an attacker pod's output: time and result. `name`: of the deployment, or pod/NAME."""
    which = name if "/" in name else f"deployment/{name}"
    text = world.cluster.kubectl("logs", which, "--namespace", SHOP)
    pairs = (line.split(" ", 1) for line in text.splitlines())
    return [(float(at), result) for at, result in pairs]


def attacker(name: str, labels: dict[str, str], address: str = METADATA) -> dict[str, Any]:
    """Returns a Deployment of one pod that attacks without a pause, without any privilege."""
    container = {
        "name": name, "env": [{"name": "ADDRESS", "value": address}],
        "image": REFERENCE, "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/python3", "-I", "-c", LOOP],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }  # fmt: skip
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": SHOP},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name, **labels}}, "spec": pod},
        },
    }  # fmt: skip
