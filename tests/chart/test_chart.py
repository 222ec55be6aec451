# SPDX-License-Identifier: Apache-2.0
"""The chart as text: lint, values in many combinations, schemas of several Kubernetes versions, promises."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from ringfence.bpf.privileges import NEEDED
from ringfence.config import KEYS, load
from ringfence.policy.load import load_bytes
from tests.chart.helm import CHART, Object, Refused, by_kind, render, run
from tools.chart_schema import OWN, config_properties

VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
CUSTOM = ("PodMonitor", "ServiceMonitor", "PrometheusRule")  # of the Prometheus operator
VERSIONS = ("1.25", "1.29", "1.31", "1.35")
SETS: tuple[dict[str, Any], ...] = (
    {},
    {"mode": "enforce", "canary": False, "page": {"enabled": True}},
    {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}},
    {"serviceMonitor": {"enabled": True}, "networkPolicy": {"from": [{"namespaceSelector": {}}]}},
    {"runtime": "none", "kubernetes": {"watch": False}, "test": {"enabled": False}},
    {"runtime": "crio", "startupTaint": {"enabled": True}, "metrics": {"programStats": True}},
    {"runtime": "docker", "image": {"digest": "sha256:" + "0" * 64}, "imagePullSecrets": [{"name": "x"}]},
    {"policies": {"pack": False, "existingConfigMap": "mine"}, "alertHeadersSecret": "tokens"},
    {"policies": {"optional": ["hot"], "extra": {"own.yaml": "# nothing\n"}}, "fullnameOverride": "fence"},
    {"customProbes": {"enabled": True, "files": {"mine.c": "int x;"}}, "rbac": {"create": False},
     "serviceAccount": {"create": False, "name": "theirs"}},
    {"security": {"seccompProfile": "Localhost", "seccompFile": "a", "seLinuxOptions": {"type": "spc_t"}},
     "affinity": {"nodeAffinity": {}}, "podLabels": {"team": "x"}, "podAnnotations": {"a": "b"}},
    {"config": {"alerts": {"webhook": ["https://alerts.example/"], "severity": "medium"},
                "containers": {"max": 512}, "observe": {"file.open": "activity"}}},
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
    """Strict schemas: an unknown field is a mistake."""
    objects = render(values, kubernetes=f"{version}.0")
    assert objects
    for one in objects:
        if one["kind"] not in CUSTOM:
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
        one["name"]: one.get("value", "node-1") for one in agent_pod(objects)["containers"][0]["env"]
    }
    found = load(file, environment)
    assert found.mode == values.get("mode", "audit")
    assert found.http_listen
    assert found.http_listen.host == "0.0.0.0"
    assert yaml.safe_load(file.read_text())["policies"] == ["/etc/ringfence/policies"]


def _contradictions() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "two monitors", {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}
    yield "tag and digest", {"image": {"tag": "1", "digest": "sha256:" + "0" * 64}}
    yield "a ConfigMap and the pack", {"policies": {"existingConfigMap": "mine"}}
    yield "no policies", {"policies": {"pack": False}}
    yield "a watch that nobody allows", {"rbac": {"create": False}}
    yield "an account without a name", {"serviceAccount": {"create": False}}
    yield "Localhost without a file", {"security": {"seccompProfile": "Localhost"}}
    yield "a file without Localhost", {"security": {"seccompFile": "x.json"}}
    yield "a directory of no runtime", {"runtime": "none", "runtimeDirectory": "/run/x"}
    yield "a socket of no runtime", {"runtime": "none", "config": {"cri": {"socket": "/run/x"}}}
    yield "probes that are off", {"customProbes": {"files": {"a.c": "x"}}}
    yield "a second way to say the mode", {"config": {"mode": "enforce"}}
    yield "a second way to listen", {"config": {"http": {"listen": "0.0.0.0:1"}}}
    yield "an unknown mode", {"mode": "enforced"}
    yield "an unknown value", {"modee": "audit"}
    yield "an unknown key of the agent", {"config": {"activity": {"speed": 3}}}
    yield "no node at a time", {"updateStrategy": {"maxUnavailable": 0}}
    yield "a port that is none", {"metrics": {"port": 70000}}
    yield "an interval that is none", {"podMonitor": {"interval": "often"}}
    yield "an empty policy", {"policies": {"extra": {"own.yaml": ""}}}


@pytest.mark.parametrize(
    ("what", "values"), list(_contradictions()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_the_schema_refuses(what: str, values: dict[str, Any]) -> None:
    """Before anything reaches a cluster, and by naming the value."""
    with pytest.raises(Refused, match="specifications of the schema") as refused:
        render(values)
    places = re.findall(r"at '(/[^']*)'", str(refused.value)) or re.findall(
        r"additional properties '", str(refused.value)
    )
    assert places, f"{what}: {refused.value}"


def test_the_schema_and_the_values_name_the_same_keys() -> None:
    """Nothing undocumented, nothing forgotten."""

    def compare(values: Any, schema: Any, path: str) -> None:
        known = schema.get("properties")
        if known is None or path == "config":
            return
        assert set(values) == set(known) - {"global"}, path
        for key in values:
            compare(values[key], known[key], f"{path}.{key}" if path else key)

    compare(VALUES, SCHEMA, "")


def test_every_value_is_explained() -> None:
    """A comment right above it, or above the group that it begins."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z]\w*:", line):
            before = lines[number - 1].strip()
            after = lines[number + 1].strip() if number + 1 < len(lines) else ""
            sibling = bool(re.match(r"[a-z]\w*:", before))
            assert before.startswith("#") or after.startswith("#") or sibling or line.endswith(":"), line


def test_config_offers_exactly_the_keys_of_the_agent_that_the_chart_does_not_set() -> None:
    """After a new key: `python3 -m tools.chart_schema`, or add it to what the chart sets."""
    assert SCHEMA["properties"]["config"]["properties"] == config_properties()
    assert {key.path for key in KEYS} >= OWN


def test_the_agent_has_the_capabilities_that_were_proven_and_no_more() -> None:
    """The list of `ringfence probe`; never privileged; nothing can be gained."""
    context = agent_pod(render())["containers"][0]["securityContext"]
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"]["drop"] == ["ALL"]
    assert set(context["capabilities"]["add"]) == {one.name for one in NEEDED}


def test_of_the_host_it_shares_the_processes_alone() -> None:
    """And writes to three directories."""
    pod = agent_pod(render())
    assert pod["hostPID"] is True
    assert not pod.get("hostNetwork")
    assert not pod.get("hostIPC")
    writable = {
        mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"] if not mount.get("readOnly")
    }
    assert writable == {"/run/ringfence", "/sys/fs/bpf", "/sys/fs/cgroup"}
    quiet = agent_pod(render({"canary": False}))["containers"][0]["volumeMounts"]
    assert {mount["mountPath"] for mount in quiet if not mount.get("readOnly")} == writable - {
        "/sys/fs/cgroup"
    }


def test_rbac_has_the_fewest_verbs() -> None:
    """Pods are listed and watched; nodes are touched for the taint alone; without both there is no role."""
    rules = by_kind(render(), "ClusterRole")["rules"]
    assert rules == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    tainted = by_kind(render({"startupTaint": {"enabled": True}}), "ClusterRole")["rules"]
    assert tainted[1:] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}]
    alone = render({"kubernetes": {"watch": False}})
    assert not [one for one in alone if "Role" in one["kind"]]
    assert agent_pod(alone)["automountServiceAccountToken"] is False


def test_the_policies_of_the_chart_are_the_pack() -> None:
    """The ConfigMap holds a set that loads, with every rule of the project's directory."""
    data = by_kind(render({"policies": {"optional": ["hot"]}}), "ConfigMap", "-policies")["data"]
    found = load_bytes({name: text.encode() for name, text in data.items()})
    directory = CHART.parents[1] / "policies"
    paths = [*directory.glob("*.yaml"), directory / "optional/hot.yaml"]
    assert found.rules == load_bytes({str(path): path.read_bytes() for path in paths}).rules
    assert sum(map(len, data.values())) < 1 << 20, "a ConfigMap holds one MiB"


def test_the_daemonset_does_not_take_the_test_pod_for_its_own() -> None:
    """The selector of one must not choose the other, nor must the service."""
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
    """The values `runbookBase` and `nameOverride` reach every rule."""
    values = {
        "prometheusRule": {"enabled": True, "runbookBase": "https://wiki.example/rb/"},
        "nameOverride": "fence",
        "podMonitor": {"enabled": True},
    }
    objects = render(values)
    rules = [
        rule for group in by_kind(objects, "PrometheusRule")["spec"]["groups"] for rule in group["rules"]
    ]
    urls = [rule["annotations"]["runbook_url"] for rule in rules if "alert" in rule]
    assert all(re.fullmatch(r"https://wiki\.example/rb/[a-z-]+\.md", url) for url in urls)
    assert not [rule for rule in rules if 'job="ringfence"' in rule["expr"]]
    assert [rule for rule in rules if 'job="fence"' in rule["expr"]]
    monitor = by_kind(objects, "PodMonitor")["spec"]
    assert monitor["jobLabel"] == "app.kubernetes.io/name"
    assert monitor["selector"]["matchLabels"]["app.kubernetes.io/name"] == "fence"


def test_notes_say_what_to_look_at_first() -> None:
    """They are rendered by an install only; a dry run on no cluster is one."""
    done = run("install", "rf", str(CHART), "--dry-run=client", "--namespace", "security")
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for words in ("helm -n security test rf", "ringfence probe", "--set mode=enforce", "fail_mode=open"):
        assert words in notes
