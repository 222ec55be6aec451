# SPDX-License-Identifier: Apache-2.0
"""The chart as text: lint, combinations of values, schemas of several Kubernetes versions."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ringfence.bpf.privileges import NEEDED
from ringfence.config import load
from ringfence.policy.load import load_bytes
from ringfence.policy.model import Traits
from tests.chart.helm import CHART, Object, Refused, by_kind, render, run

DATA = Path(__file__).resolve().parents[1] / "data"
#: of the Prometheus operator: monitoring.coreos.com/v1, as far as the chart could use it, strict
OPERATOR: dict[str, Any] = json.loads((DATA / "prometheus-operator.json").read_text())
VERSIONS = ("1.25", "1.29", "1.31", "1.35")
SETS: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "enforce", "canary": False, "page": {"enabled": True}},
    {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}},
    {"serviceMonitor": {"enabled": True}, "networkPolicy": {"from": [{"namespaceSelector": {}}]},
     "prometheusRule": {"enabled": True, "runbookBase": "https://wiki.example/rb"}},
    {"runtime": "none", "kubernetes": {"watch": False}, "test": {"enabled": False}},
    {"runtime": "crio", "startupTaint": {"enabled": True}, "metrics": {"programStats": True}},
    {"runtime": "docker", "image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "x"}]},
    {"policies": {"pack": False, "existingConfigMap": "mine"}, "test": {"enabled": False},
     "updateStrategy": {"type": "OnDelete"}, "networkPolicy": {"namespaces": []}},
    {"config": {"alerts": {"syslog": "udp://siem.example:514"}}, "alerts": {"queue": {"enabled": False}}},
    {"policies": {"optional": ["hot"], "extra": {"own.yaml": "# nothing\n"}}, "fullnameOverride": "fence"},
    {"customProbes": {"enabled": True, "files": {"mine.c": "int x;"}}, "rbac": {"create": False},
     "serviceAccount": {"create": False, "name": "theirs"}},
    {"security": {"seccompProfile": "Localhost", "seccompFile": "a", "seLinuxOptions": {"type": "spc_t"}},
     "affinity": {"nodeAffinity": {}}, "podLabels": {"team": "x"}, "podAnnotations": {"a": "b"}},
    {"config": {"alerts": {"webhook": ["https://alerts.example/"], "severity": "medium"},
                "containers": {"max": 512}, "observe": {"file.open": "activity"}},
     "alerts": {"headersSecret": "tokens", "caSecret": "ca", "receiversSecret": "hooks",
                "file": {"enabled": True}},
     "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
     "extraVolumes": [{"name": "more", "emptyDir": {}}],
     "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}]},
)  # fmt: skip


def agent_pod(objects: list[Object]) -> Object:
    """The DaemonSet's pod."""
    pod: Object = by_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
    return pod


def test_lint_finds_nothing() -> None:
    """`helm lint --strict`, with the default values and with most things on."""
    done = run("lint", "--strict", str(CHART), "--set",
               "podMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true")  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("values", "version"), list(itertools.product(SETS, VERSIONS)))
def test_what_is_rendered_is_what_kubernetes_takes(values: dict[str, Any], version: str) -> None:
    """Strict schemas: an unknown field is an error."""
    objects = render(values, kubernetes=f"{version}.0")
    assert objects
    for one in objects:
        if one["apiVersion"] == "monitoring.coreos.com/v1":
            jsonschema.validate(one, {**OPERATOR, "$ref": f"#/definitions/{one['kind']}"})
        else:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("values", SETS)
def test_the_agent_takes_the_configuration(values: dict[str, Any], tmp_path: Path) -> None:
    """agent.yaml as the ConfigMap holds it, by the agent's own reader."""
    objects = render(values)
    name = by_kind(objects, "DaemonSet")["metadata"]["name"]
    config = next(one for one in objects if one["kind"] == "ConfigMap" and one["metadata"]["name"] == name)
    file = tmp_path / "agent.yaml"
    file.write_text(config["data"]["agent.yaml"])
    environment = {
        one["name"]: one.get("value", "node-1")
        for one in agent_pod(objects)["containers"][0]["env"]
        if "secretKeyRef" not in one.get("valueFrom", {})  # which may lack that key
    }
    found = load(file, environment)
    assert found.mode == values.get("mode", "audit")
    assert found.http_listen
    assert found.http_listen.host == "::", "pods have addresses of one family or both"
    assert yaml.safe_load(file.read_text())["policies"] == ["/etc/ringfence/policies"]


def test_the_agent_has_the_capabilities_that_were_proven_and_no_more() -> None:
    """The list of `ringfence probe`; never privileged; nothing can be gained."""
    context = agent_pod(render())["containers"][0]["securityContext"]
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    assert set(context["capabilities"]["add"]) == {one.name for one in NEEDED}


def test_of_the_host_it_shares_the_processes_alone() -> None:
    """And writes to four directories."""
    pod = agent_pod(render())
    assert pod["hostPID"] is True
    assert not pod.get("hostNetwork")
    assert not pod.get("hostIPC")
    writable = {
        mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")
    }
    assert writable == {"/run/ringfence", "/var/lib/ringfence-policies", "/sys/fs/bpf", "/sys/fs/cgroup"}
    quiet = agent_pod(render({"canary": False}))["containers"][0]["volumeMounts"]
    assert {mount["mountPath"] for mount in quiet if not mount.get("readOnly")} == writable - {
        "/sys/fs/cgroup"
    }


def test_rbac_has_the_fewest_verbs() -> None:
    """Pods are listed and watched; nodes are patched for the taint only; without both there is no role."""
    rules = by_kind(render(), "ClusterRole")["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    tainted = by_kind(render({"startupTaint": {"enabled": True}}), "ClusterRole")["rules"]
    assert tainted[1:] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]
    alone = render({"kubernetes": {"watch": False}})
    assert not [one for one in alone if "Role" in one["kind"]]
    assert agent_pod(alone)["automountServiceAccountToken"] is False


def test_the_policies_of_the_chart_are_the_pack() -> None:
    """The ConfigMap contains a set that loads, with every rule of the project's directory."""
    data = by_kind(render({"policies": {"optional": ["hot"]}}), "ConfigMap", "-policies")["data"]
    found = load_bytes({name: text.encode() for name, text in data.items()})
    directory = CHART.parents[1] / "policies"
    paths = [*directory.glob("*.yaml"), directory / "optional/hot.yaml"]
    assert found.rules == load_bytes({str(path): path.read_bytes() for path in paths}).rules
    assert sum(map(len, data.values())) < 1 << 20, "a ConfigMap holds one MiB"


def test_containers_can_be_left_out_of_the_pack() -> None:
    """Of every policy except the invariants: the others, enforced, would kill network plugins."""
    but = {"namespaces": ["kube-system"], "labels": {"tier": "node"}, "privileged": True}
    data = by_kind(render({"policies": {"optional": ["hot"], "except": but}}), "ConfigMap", "-policies")[
        "data"
    ]
    policies = load_bytes({name: text.encode() for name, text in data.items()}).policies
    left_out = Traits(namespaces=("kube-system",), labels=(("tier", "node"),), privileged=True)
    assert {policy.name for policy in policies if policy.selector.but is None} == {"invariants"}
    assert {policy.selector.but for policy in policies} == {None, left_out}
    assert len(policies) > 10


def test_the_daemonset_does_not_take_the_test_pod_for_its_own() -> None:
    """No selector and no service may select both."""
    objects = render()
    labels = by_kind(objects, "Pod")["metadata"]["labels"].items()
    chosen = by_kind(objects, "DaemonSet")["spec"]["selector"]["matchLabels"]
    assert not chosen.items() <= labels
    assert not by_kind(objects, "Service")["spec"]["selector"].items() <= labels
    assert chosen.items() <= by_kind(objects, "DaemonSet")["spec"]["template"]["metadata"]["labels"].items()


def test_a_new_configuration_restarts_agents_and_new_policies_do_not() -> None:
    """Policies are read again by the running agent."""

    def template(values: dict[str, Any]) -> Object:
        found: Object = by_kind(render(values), "DaemonSet")["spec"]["template"]
        return found

    assert template({}) == template({"policies": {"optional": ["hot"]}})
    assert template({}) != template({"mode": "enforce"})


def test_rules_carry_the_runbooks_and_the_job_of_the_release() -> None:
    """The values `runbookBase`, `nameOverride` and `fullnameOverride` reach every rule."""
    values = {
        "prometheusRule": {"enabled": True, "runbookBase": "https://wiki.example/rb/"},
        "nameOverride": "fence",
        "fullnameOverride": "node-guard",
        "podMonitor": {"enabled": True},
        "config": {"audit": {"interval": 3600}},
    }
    objects = render(values)
    rules = _rules(objects)
    alerts = [rule for rule in rules if "alert" in rule]
    urls = [rule["annotations"]["runbook_url"] for rule in alerts]
    assert all(re.fullmatch(r"https://wiki\.example/rb/[a-z-]+\.md", url) for url in urls)
    assert not [rule for rule in rules if 'job="ringfence"' in rule["expr"]]
    assert [rule for rule in rules if 'job="fence"' in rule["expr"]]
    (missing,) = (rule["expr"] for rule in alerts if rule["alert"] == "RingfenceAgentMissing")
    assert missing.count('{daemonset="node-guard", namespace="security"}') == 2
    assert "ringfence" not in missing.replace("kube_daemonset", "")
    (stale,) = (rule["expr"] for rule in alerts if rule["alert"] == "RingfenceAuditStale")
    assert stale.startswith("time() - 10800 > "), "three rounds"
    monitor = by_kind(objects, "PodMonitor")["spec"]
    assert monitor["jobLabel"] == "app.kubernetes.io/name"
    assert monitor["selector"]["matchLabels"]["app.kubernetes.io/name"] == "fence"


def test_without_a_base_runbooks_are_those_of_the_project() -> None:
    """Every alert has a runbook_url, which Alertmanager makes a link of."""
    alerts = [rule for rule in _rules(render({"prometheusRule": {"enabled": True}})) if "alert" in rule]
    base = "https://github.com/ringfence/ringfence/blob/main/docs/runbooks/"
    assert alerts
    assert all(rule["annotations"]["runbook_url"].startswith(base) for rule in alerts)


def test_single_alerts_can_be_left_out_and_a_misspelt_one_is_refused() -> None:
    """The recording rules stay; a name that no alert has would leave the alert on."""
    chosen = {"enabled": True, "disabled": ["RingfenceAuditCritical", "RingfenceAuditStale"]}
    every, rest = (_rules(render({"prometheusRule": rule})) for rule in ({"enabled": True}, chosen))
    names = [{rule.get("alert") or rule["record"] for rule in rules} for rules in (every, rest)]
    assert names[0] - names[1] == {"RingfenceAuditCritical", "RingfenceAuditStale"}
    with pytest.raises(Refused, match='there is no alert "RingfenceAuditCrtical"'):
        render({"prometheusRule": {"enabled": True, "disabled": ["RingfenceAuditCrtical"]}})


def _rules(objects: list[Object]) -> list[Object]:
    groups = by_kind(objects, "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_alerts_wait_on_the_disk_of_the_node_where_there_is_a_receiver() -> None:
    """And nowhere where there is none: a directory that is not needed is not shown."""
    config = {"alerts": {"webhook": ["https://alerts.example/"]}}
    pod = agent_pod(render({"config": config}))
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["queue"]["hostPath"] == {"path": "/var/lib/ringfence", "type": "DirectoryOrCreate"}
    assert "queue" not in {volume["name"] for volume in agent_pod(render())["volumes"]}
    memory = agent_pod(render({"config": config, "alerts": {"queue": {"enabled": False}}}))
    assert "queue" not in {volume["name"] for volume in memory["volumes"]}


def test_what_the_runtime_unmounts_goes_in_the_agent_too() -> None:
    """The directory, never a socket's file, which is stale after a restart of the runtime."""
    for runtime, directory, seen in (
        ("containerd", "/run/containerd", "/run/containerd"),
        ("crio", "/run/crio", "/run/crio"),
        ("docker", "/run", "/host/run"),
    ):
        pod = agent_pod(render({"runtime": runtime}))
        (volume,) = (one for one in pod["volumes"] if one["name"] == "runtime")
        assert volume["hostPath"] == {"path": directory, "type": "Directory"}
        mounts = pod["containers"][0]["volumeMounts"]
        (mount,) = (one for one in mounts if one["name"] == "runtime")
        assert mount == {
            "name": "runtime", "mountPath": seen, "readOnly": True, "mountPropagation": "HostToContainer"
        }  # fmt: skip


def test_the_agent_looks_where_the_runtime_is_said_to_be() -> None:
    """For socket and bundles: otherwise the bundles are not found. `config` has precedence."""
    tasks = "io.containerd.runtime.v2.task"
    k3s = {"runtimeDirectory": "/run/k3s/containerd"}
    own = {"cri": {"socket": "/run/k3s/containerd/other.sock"}}
    for values, socket, roots in (
        ({}, None, None),
        (k3s, "/run/k3s/containerd/containerd.sock", {"containerd": f"/run/k3s/containerd/{tasks}"}),
        ({**k3s, "config": own}, own["cri"]["socket"], {"containerd": f"/run/k3s/containerd/{tasks}"}),
        ({"runtime": "crio", "runtimeDirectory": "/run/x/"}, "/run/x/crio.sock", None),
        ({"runtime": "docker"}, "/host/run/cri-dockerd.sock",
         {"docker": "/host/run/docker.sock", "containerd": f"/host/run/containerd/{tasks}"}),
    ):  # fmt: skip
        (config,) = (
            one for one in render(values) if one["kind"] == "ConfigMap" and "agent.yaml" in one["data"]
        )
        said = yaml.safe_load(config["data"]["agent.yaml"])
        assert said.get("cri", {}).get("socket") == socket
        assert said.get("runtime", {}).get("roots") == roots


def test_metrics_are_for_the_namespaces_that_read_them() -> None:
    """Not for every pod of the cluster; the test's own pod is allowed."""
    checks, rule = by_kind(render(), "NetworkPolicy")["spec"]["ingress"]
    assert checks == {"ports": [{"port": "health", "protocol": "TCP"}]}
    assert rule["ports"] == [{"port": "metrics", "protocol": "TCP"}]
    monitoring, test = rule["from"]
    assert monitoring["namespaceSelector"]["matchExpressions"] == [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["monitoring"]}
    ]
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    closed = {"networkPolicy": {"namespaces": []}, "test": {"enabled": False}}
    assert by_kind(render(closed), "NetworkPolicy")["spec"]["ingress"] == [checks]


def test_notes_say_what_to_look_at_first() -> None:
    """They are rendered by an install only; a dry run on no cluster is one."""
    done = run("install", "rf", str(CHART), "--dry-run=client", "--namespace", "security")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for words in ("helm -n security test rf", "ringfence probe", "--set mode=enforce", "fail_mode=open"):
        assert words in notes
