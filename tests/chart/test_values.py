# SPDX-License-Identifier: Apache-2.0
"""The chart's values: each is explained; contradictions are rejected before they reach a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from ringfence.config import KEYS, Key, load
from ringfence.errors import ConfigError
from ringfence.policy import load_bytes
from tests.chart.helm import CHART, Refused, by_kind, render, run
from tools.chart_policies import COPY, SOURCE, files
from tools.chart_readme import README, made, rows
from tools.chart_schema import OWN, SCHEMA, derived, shape

TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
LAID_DOWN: dict[str, Any] = json.loads(SCHEMA.read_text())
HOOK = {"alerts": {"webhook": ["https://alerts.example/"]}}


def _mistakes() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "a second way to say the mode", {"config": {"mode": "enforce"}}
    yield "a second way to listen", {"config": {"http": {"listen": "0.0.0.0:1"}}}
    yield "a second way to say all of it", {"extraEnv": [{"name": "RINGFENCE_MODE", "value": "audit"}]}
    yield "an unknown mode", {"mode": "enforced"}
    yield "an unknown value", {"modee": "audit"}
    yield "an unknown key of the agent", {"config": {"activity": {"speed": 3}}}
    yield "a receiver that is no address", {"config": {"alerts": {"webhook": "nonsense"}}}
    yield "a receiver with a password", {"config": {"alerts": {"webhook": ["https://a:b@alerts.example"]}}}
    yield "a word that YAML makes a boolean of", {"config": {"syscalls": {"compat": False}}}
    yield "a number that is none", {"config": {"containers": {"max": "many"}}}
    yield "a queue without room", {"alerts": {"queue": {"size": "0MiB"}}}
    yield "a queue beyond all measure", {"alerts": {"queue": {"size": "1025GiB"}}}
    yield "no node at a time", {"updateStrategy": {"maxUnavailable": 0}}
    yield "a port that is none", {"metrics": {"port": 70000}}
    yield "a negative time", {"minReadySeconds": -1}
    yield "an interval that is none", {"podMonitor": {"interval": "often"}}
    yield "an exception of nothing known", {"policies": {"except": {"namespace": ["kube-system"]}}}
    yield "an empty exception", {"policies": {"except": {"namespaces": []}}}
    yield "an empty policy", {"policies": {"extra": {"own.yaml": ""}}}
    yield "a taint's key that is none", {"startupTaint": {"key": "ringfence dev/x"}}
    yield "a taint's key with two prefixes", {"startupTaint": {"key": "a/b/c"}}
    yield "a runbook at no address", {"prometheusRule": {"runbookBase": "docs/runbooks"}}
    yield "memory that is no quantity", {"resources": {"limits": {"memory": "much"}}}
    yield "a volume of the chart's own", {"extraVolumes": [{"name": "bpffs", "emptyDir": {}}]}
    yield "a key that is taken away", {"mode": None}
    yield "a key below another that is taken away", {"metrics": {"port": None}}
    yield "a section that is taken away", {"config": None}
    yield "a label with a space", {"commonLabels": {"a b": "c"}}
    yield "a value of a label that is none", {"podLabels": {"a": "b c"}}
    yield "a node's label that is none", {"nodeSelector": {"a b": "x"}}
    yield "an unknown operator", {"tolerations": [{"operator": "Exist"}]}
    yield "an unknown effect", {"tolerations": [{"key": "a", "effect": "NoRun"}]}
    yield "an unknown affinity", {"affinity": {"nodeAfinity": {}}}
    yield "a secret without a name", {"imagePullSecrets": [{}]}
    yield "a repository with a space", {"image": {"repository": "a b"}}
    yield "a repository with a digest", {"image": {"repository": "a@sha256:" + "0" * 64}}
    yield "a tag that is none", {"image": {"tag": "a b"}}
    yield "a name that no service can have", {"fullnameOverride": "a.b"}
    yield "an unknown source", {"networkPolicy": {"from": [{"namespaceSelektor": {}}]}}
    yield "an unknown relabeling", {"podMonitor": {"metricRelabelings": [{"action": "remove"}]}}
    yield "a number as a variable", {"extraEnv": [{"name": "A", "value": 5}]}
    yield "an unknown key of a variable", {"extraEnv": [{"name": "A", "values": "x"}]}
    yield (
        "a mount at the chart's place",
        {
            "extraVolumes": [{"name": "x", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "x", "mountPath": "/run/ringfence"}],
        },
    )
    yield "an exception by a word", {"policies": {"except": {"privileged": "maybe"}}}
    yield "a name of a rule that is none", {"prometheusRule": {"disabled": ["AgentDown"]}}


@pytest.mark.parametrize(
    ("what", "values"), list(_mistakes()), ids=lambda one: one if isinstance(one, str) else ""
)
def test_the_schema_refuses(what: str, values: dict[str, Any]) -> None:
    """Before anything reaches a cluster, with the value's name."""
    with pytest.raises(Refused, match="specifications of the schema") as refused:
        render(values)
    said = str(refused.value)
    assert re.search(r"at '/[^']+'|additional properties '|missing property '", said), f"{what}: {said}"


SECRET = {"alerts": {"headersSecret": "tokens"}}
CA = {"alerts": {"caSecret": "ca"}}
NO_TEST = {"test": {"enabled": False}}
CONTRADICTIONS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}},
     "serviceMonitor.enabled: podMonitor.enabled is true as well"),
    ({"image": {"tag": "1", "digest": "sha256:" + "0" * 64}}, "image.tag: there is an image.digest as well"),
    ({"policies": {"existingConfigMap": "mine"}}, "policies.existingConfigMap: it replaces pack, optional"),
    ({"policies": {"existingConfigMap": "mine", "pack": False, "optional": ["hot"]}, **NO_TEST},
     "policies.existingConfigMap: it replaces"),
    ({"policies": {"pack": False}, **NO_TEST}, "policies.pack: is false, and there are no other policies"),
    ({"policies": {"pack": False, "existingConfigMap": "mine"}}, "test.enabled: helm test needs a rule of"),
    ({"rbac": {"create": False}}, "rbac.create: is false, but the agent uses the API server"),
    ({"serviceAccount": {"create": False}}, "serviceAccount.name: is empty"),
    ({"startupTaint": {"admissionPolicy": True}}, "startupTaint.admissionPolicy: it restricts"),
    ({"security": {"seccompProfile": "Localhost"}}, "security.seccompFile: is empty"),
    ({"security": {"seccompFile": "x.json"}}, "security.seccompFile: needs security.seccompProfile"),
    ({"runtime": "none", "runtimeDirectory": "/run/x"}, "runtime: is none, but there is a runtimeDirectory"),
    ({"runtime": "none", "config": {"cri": {"socket": "/run/x"}}}, "runtime: is none"),
    ({"customProbes": {"files": {"a.c": "x"}}}, "customProbes.files: customProbes.enabled is false"),
    (SECRET, "alerts.headersSecret: no receiver takes HTTP headers"),
    ({**SECRET, "config": {"alerts": {"syslog": ["udp://a:514"]}}}, "alerts.headersSecret: no receiver"),
    (CA, "alerts.caSecret: no receiver uses TLS"),
    ({**CA, "config": {"alerts": {"syslog": ["udp://a", {"url": "tcp://b"}]}}},
     "alerts.caSecret: no receiver"),
    ({"config": {"alerts": {"file_keep": 2}}}, "config.alerts: file_size and file_keep rotate a file, but"),
    ({"config": {"observe": {"cgroup.mkdir": "off"}}}, "config.observe: the canary needs the event"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"), CONTRADICTIONS, ids=lambda one: one[:40] if isinstance(one, str) else ""
)
def test_a_contradiction_is_refused_with_the_reason(values: dict[str, Any], words: str) -> None:
    """The message begins with the value to change. A schema has no messages of its own."""
    with pytest.raises(Refused, match=words):
        render(values)


MEMORY = {"resources": {"limits": {"memory": "192Mi"}}}
ARITHMETIC: tuple[tuple[dict[str, Any], str], ...] = (
    ({"page": {"enabled": True, "port": 9911}}, "page.port: is the same port as metrics.port"),
    ({"health": {"port": 9911}}, "health.port: is the same port as metrics.port"),
    ({"page": {"enabled": True, "port": 9913}}, "page.port: is the same port as health.port"),
    ({"resources": {"limits": {"memory": "8Mi"}}}, "resources.limits.memory: 8Mi is less than 96Mi"),
    ({"resources": {"limits": {"memory": "0.05Gi"}}}, "resources.limits.memory: 0.05Gi is less than 96Mi"),
    ({"resources": {"limits": {"memory": 8000000}}}, "resources.limits.memory: .* is less than 96Mi"),
    ({"resources": {"requests": {"memory": "1Gi"}}}, "resources.requests.memory: 1Gi is more than"),
    ({"customProbes": {"enabled": True}, **MEMORY}, "192Mi is less than 256Mi"),
    ({"config": {"alerts": {"otlp": ["http://a", "http://b", "http://c"]}},
      "alerts": {"queue": {"enabled": False}}},
     "alerts.queue.enabled: without it 3 receivers can use 64MiB each in memory"),
    ({"alerts": {"queue": {"hostPath": "/run/ringfence/queue"}}}, "alerts.queue.hostPath: is in /run"),
    ({"extraVolumeMounts": [{"name": "x", "mountPath": "/x"}]}, 'extraVolumeMounts: extraVolumes has no "x"'),
)  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"), ARITHMETIC, ids=lambda one: one[:40] if isinstance(one, str) else ""
)
def test_what_a_schema_cannot_compare_is_refused_too(values: dict[str, Any], words: str) -> None:
    """By templates/_validate.tpl, which names the value."""
    with pytest.raises(Refused, match=words):
        render(values)


def test_what_is_just_enough_is_taken() -> None:
    """The other side of each bound."""
    render({"page": {"enabled": True, "port": 9912}, "resources": {"limits": {"memory": "96Mi"}}})
    render({"page": {"enabled": False, "port": 9911}, "resources": {"limits": {"memory": "0.1Gi"}}})
    render(
        {
            "config": HOOK,
            "alerts": {"queue": {"enabled": False}},
            "resources": {"limits": {"memory": "160Mi"}},
        }
    )
    render({"customProbes": {"enabled": True}, "resources": {"limits": {"memory": "256Mi"}}})
    render({"resources": {"limits": {"memory": "1Pi"}}})
    render({**SECRET, "config": {"alerts": {"webhook": "https://alerts.example/"}}})  # one, and not a list
    for key in ("a", "ringfence.dev/agent-not-ready", "x.y-z.example/A_b.c"):
        render({"startupTaint": {"enabled": True, "key": key}})


@pytest.mark.parametrize(
    "syslog",
    [
        "tls://a",
        ["udp://b:514", "tls://a:6514"],
        {"url": "tls://a"},
        [{"url": "tls://a", "certificate": "/c"}],
    ],
)
def test_certificates_are_for_syslog_by_tls_too(syslog: Any) -> None:
    """`alerts.ca` is also used for such a receiver."""
    objects = render({"config": {"alerts": {"syslog": syslog}}, "alerts": {"caSecret": "ca"}})
    (config,) = (one for one in objects if one["kind"] == "ConfigMap" and "agent.yaml" in one["data"])
    assert yaml.safe_load(config["data"]["agent.yaml"])["alerts"]["ca"].endswith("/ca.crt")


def test_addresses_that_are_secrets_come_from_a_secret(tmp_path: Path) -> None:
    """Not by the ConfigMap; they count as receivers: for the queue, for headers and certificates."""
    secret = {"receiversSecret": "hooks", "headersSecret": "tokens", "caSecret": "ca"}
    objects = render({"alerts": secret})
    pod = by_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
    found = {one["name"]: one["valueFrom"] for one in pod["containers"][0]["env"] if "ALERTS" in one["name"]}
    assert found == {
        f"RINGFENCE_ALERTS_{kind.upper()}": {"secretKeyRef": {"name": "hooks", "key": kind, "optional": True}}
        for kind in ("webhook", "alertmanager", "slack", "teams", "otlp", "syslog")
    }
    assert "queue" in {volume["name"] for volume in pod["volumes"]}
    (config,) = (one for one in objects if one["kind"] == "ConfigMap" and "agent.yaml" in one["data"])
    (tmp_path / "agent.yaml").write_text(config["data"]["agent.yaml"])
    # as `kubectl create secret --from-file` keeps it
    given = {"RINGFENCE_ALERTS_WEBHOOK": "https://a.example/T0/x,https://a.example/T0/y\n"}
    taken = load(tmp_path / "agent.yaml", given)
    assert [one.url for one in taken.alerts_webhook] == ["https://a.example/T0/x", "https://a.example/T0/y"]
    assert taken.queue_dir == Path("/var/lib/ringfence/queue")
    assert "receiversSecret" not in str(render())


def test_the_policy_of_admission_needs_a_cluster_that_has_such() -> None:
    """ValidatingAdmissionPolicy is v1 from 1.30 on."""
    values = {"startupTaint": {"enabled": True, "admissionPolicy": True}}
    with pytest.raises(Refused, match=r"startupTaint.admissionPolicy: needs Kubernetes 1.30"):
        render(values, kubernetes="1.29.4")
    assert [one for one in render(values, kubernetes="1.30.0") if one["kind"].startswith("Validating")]


def test_the_schema_and_the_values_name_the_same_keys() -> None:
    """Every value is documented, and every documented value exists."""

    def compare(values: Any, schema: Any, path: str) -> None:
        known = schema.get("properties")
        if known is None or path == "config":
            return
        assert set(values) == set(known) - {"global"}, path
        for key in values:
            compare(values[key], known[key], f"{path}.{key}" if path else key)

    compare(VALUES, LAID_DOWN, "")


def _keys(node: yaml.MappingNode, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every key on its own line, with that line's number."""
    for key, value in node.value:
        here = (*path, key.value)
        yield here, key.start_mark.line
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _keys(value, here)


def test_every_value_is_explained_one_by_one() -> None:
    """A comment right above it. Only the switch of a group is explained by the group's own comment."""
    lines = TEXT.splitlines()
    root = yaml.compose(TEXT)
    assert isinstance(root, yaml.MappingNode)
    for path, line in _keys(root):
        above = lines[line - 1].strip()
        group = path[-1] == "enabled" and above.startswith(f"{path[-2]}:")
        assert group or re.match(r"# \S.*\S", above), f"{'.'.join(path)} is not explained"


def test_the_derived_parts_of_the_schema_are_those_of_the_agent() -> None:
    """After a new key: `python3 -m tools.chart_schema`, or add it to what the chart sets."""
    assert derived(LAID_DOWN) == LAID_DOWN
    assert {key.path for key in KEYS} >= OWN


#: valid and invalid input
TRIED: tuple[Any, ...] = (
    "off", "on", "auto", "yes", "nonsense", "", "/a/path", "relative", "64MiB", "3", "1MiB", "100K", "low",
    "info", "https://a.example/x", "ftp://a", "http://a:b@c", "udp://a:1", "tcp://a", "unix:///x", "name-*",
    "a-{hex64}", "127.0.0.1:1", "sweep", "native", "full", "watch", "open", "btf", "second", "x+", "always",
    "debug", 0, 1, 5, 100, 70000, 20_000_000, -1, 1.5, True, False, ["https://a.example"], ["/a"],
    ["name-*"], ["sweep"], [], [""], [1], {}, {"file.open": "off"}, {"file.open": "loud"}, {"nothing": "off"},
    {"docker": "/x"}, {"docker": "x"}, {"url": "https://a.example", "headers": "/h"}, {"cluster": "prod"},
    {"url": "tls://a.example", "certificate": "off"}, {"url": "https://a", "header": "/h"}, {"pod": 5},
    ["https://a.example headers=/h"], "tls://a.example:6514 key=/x", {"headers": "/h"}, "tls://a.example:6514",
)  # fmt: skip
OFFERED = [key for key in KEYS if key.path not in OWN]


def _agent_takes(key: Key, value: Any, directory: Path) -> bool:
    """By its own reader, from the text that helm would write."""
    section, _, name = key.path.rpartition(".")
    file = directory / "agent.yaml"
    text: dict[str, Any] = {"activity": {"rate": 0}}  # else a small burst contradicts the usual rate
    if section:
        text.setdefault(section, {})[name] = value
    else:
        text[name] = value
    file.write_text(yaml.safe_dump(text))
    try:
        load(file, environment={})
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("key", OFFERED, ids=lambda key: str(key.path))
def test_what_the_schema_takes_the_agent_takes(key: Key, tmp_path: Path) -> None:
    """Otherwise a pod would not start. Each key accepts some values and rejects others."""
    judged = jsonschema.Draft7Validator(shape(key))
    taken = [value for value in TRIED if judged.is_valid(value)]
    assert 0 < len(taken) < len(TRIED)
    for value in taken:
        assert _agent_takes(key, value, tmp_path), f"{key.path}: {value!r}"


POLICY: dict[str, Any] = {
    "apiVersion": "ringfence.dev/v1",
    "kind": "Policy",
    "metadata": {"name": "mine"},
    "spec": {
        "selector": {"containers": "all"},
        "rules": [
            {"id": "mine", "title": "A mount", "severity": "high", "event": "mount",
             "match": {"fstype": "ext4"}, "action": "deny"},
        ],
    },
}  # fmt: skip


RESERVED_RULE = {**POLICY["spec"]["rules"][0], "id": "sweep"}  # an id of the agent's own


def test_a_policy_in_values_is_checked_and_read_by_the_agent() -> None:
    """As a mapping by its schema, as text by its kind; both load."""
    extra = {"a.yaml": POLICY, "b.yaml": "# a comment\n---\n" + yaml.safe_dump(renamed("other"))}
    objects = render({"policies": {"extra": extra}})
    (found,) = (one["data"] for one in objects if one["kind"] == "ConfigMap" and "a.yaml" in one["data"])
    read = load_bytes({name: found[name].encode() for name in extra})
    assert [policy.name for policy in read.policies] == ["mine", "other"]


def renamed(name: str) -> dict[str, Any]:
    """The same policy under another name."""
    rule = {**POLICY["spec"]["rules"][0], "id": name}
    spec = {**POLICY["spec"], "rules": [rule]}
    return {**POLICY, "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({**POLICY, "kind": "ConfigMap"}, "policies"),
        ({**POLICY, "spec": {**POLICY["spec"], "mode": "enforced"}}, "policies"),
        ({**POLICY, "spec": {**POLICY["spec"], "rules": [RESERVED_RULE]}}, "rules/0/id"),
        ("nonsense: [", "is not a policy"),
        ("kind: ConfigMap\n", "is not a policy"),
        ("", "policies"),
    ],
)
def test_a_mistake_in_a_policy_is_refused_by_helm(policy: Any, said: str) -> None:
    """Before any node sees it."""
    with pytest.raises(Refused, match=said):
        render({"policies": {"extra": {"a.yaml": policy}}})


def test_the_chart_has_the_policies_of_the_project_and_no_links() -> None:
    """After a change of policies: `python3 -m tools.chart_policies`. GitOps tools refuse links."""
    assert files(COPY) == files(SOURCE)
    assert not [path for path in CHART.rglob("*") if path.is_symlink()]
    assert "symbolic link" not in run("lint", str(CHART)).stderr


def test_labels_arguments_probes_and_contexts_reach_the_objects() -> None:
    """The usual knobs of a chart, without losing what the chart needs."""
    values = {
        "commonLabels": {"team": "security"}, "extraArgs": ["--log-level", "debug"],
        "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca.crt"}],
        "startupProbe": {"failureThreshold": 90}, "readinessProbe": {"timeoutSeconds": 9},
        "minReadySeconds": 30,
        "livenessProbe": {"failureThreshold": 6}, "podSecurityContext": {"supplementalGroups": [4000]},
        "securityContext": {"runAsNonRoot": False},
        "podMonitor": {"enabled": True, "namespace": "monitoring"},
        "prometheusRule": {"enabled": True, "namespace": "monitoring"},
    }  # fmt: skip
    objects = render(values)
    assert all(one["metadata"]["labels"]["team"] == "security" for one in objects if one["kind"] != "Pod")
    daemonset = by_kind(objects, "DaemonSet")["spec"]
    assert daemonset["minReadySeconds"] == 30
    assert "team" not in daemonset["selector"]["matchLabels"], "selectors cannot change"
    assert daemonset["template"]["metadata"]["labels"]["team"] == "security"
    pod = daemonset["template"]["spec"]
    (agent,) = pod["containers"]
    assert agent["args"][-2:] == ["--log-level", "debug"]
    assert {"name": "SSL_CERT_FILE", "value": "/ca.crt"} in agent["env"]
    assert agent["startupProbe"]["failureThreshold"] == 90
    assert agent["readinessProbe"]["timeoutSeconds"] == 9
    assert agent["livenessProbe"] == {
        "httpGet": {"path": "/healthz", "port": "health"}, "periodSeconds": 10, "timeoutSeconds": 5,
        "failureThreshold": 6,
    }  # fmt: skip
    assert pod["securityContext"]["supplementalGroups"] == [4000]
    assert agent["securityContext"]["runAsNonRoot"] is False
    assert agent["securityContext"]["capabilities"]["drop"] == ["ALL"]
    monitor = by_kind(objects, "PodMonitor")
    assert monitor["metadata"]["namespace"] == "monitoring"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["security"]}
    assert by_kind(objects, "PrometheusRule")["metadata"]["namespace"] == "monitoring"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}, "securityContext: capabilities is"),
        ({"podSecurityContext": {"runAsUser": 1000}}, "podSecurityContext: runAsUser is set"),
        ({"commonLabels": {"app.kubernetes.io/name": "mine"}}, "commonLabels: app.kubernetes.io/name is set"),
        ({"commonLabels": {"helm.sh/chart": "mine"}}, "commonLabels: helm.sh/chart is set"),
        ({"podLabels": {"ringfence.dev/pool": "mine"}}, "podLabels: ringfence.dev/pool is set"),
        ({"podLabels": {"app.kubernetes.io/component": "x"}}, "podLabels: app.kubernetes.io/component is"),
        ({"podAnnotations": {"checksum/config": "x"}}, "podAnnotations: checksum/config is set"),
        ({"podMonitor": {"labels": {"helm.sh/chart": "x"}}}, "podMonitor.labels: helm.sh/chart is set"),
        ({"policies": {"extra": {"pack-kernel.yaml": "kind: Policy"}}}, "policies.extra.pack-kernel.yaml:"),
        ({"extraArgs": ["--config=/mine"]}, "at '/extraArgs/0'"),
    ],
)  # fmt: skip
def test_what_the_chart_sets_itself_cannot_be_set_again(values: dict[str, Any], words: str) -> None:
    """A duplicate key, or an agent without what it needs."""
    with pytest.raises(Refused, match=re.escape(words)):
        render(values)


def test_labels_of_one_object_override_those_of_all() -> None:
    """A key that stands twice is refused by GitOps tools, and one of the two is lost."""
    labels = {"enabled": True, "labels": {"team": "one"}}
    objects = render({
        "commonLabels": {"team": "all"}, "podLabels": {"team": "pods"}, "podMonitor": labels,
        "prometheusRule": labels, "dashboards": labels,
    })  # fmt: skip
    assert by_kind(objects, "PodMonitor")["metadata"]["labels"]["team"] == "one"
    assert by_kind(objects, "PrometheusRule")["metadata"]["labels"]["team"] == "one"
    assert by_kind(objects, "ConfigMap", "-fleet")["metadata"]["labels"]["team"] == "one"
    daemonset = by_kind(objects, "DaemonSet")
    assert daemonset["metadata"]["labels"]["team"] == "all"
    assert daemonset["spec"]["template"]["metadata"]["labels"]["team"] == "pods"


def test_volumes_of_the_chart_cannot_be_set_again() -> None:
    """The schema has the names and places of all."""
    objects = render({
        "alerts": {"headersSecret": "a", "caSecret": "b", "file": {"enabled": True}}, "config": HOOK,
        "customProbes": {"enabled": True, "files": {"a.c": "x"}},
    })  # fmt: skip
    pod = by_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
    names = LAID_DOWN["properties"]["extraVolumes"]["items"]["properties"]["name"]["not"]["enum"]
    assert {volume["name"] for volume in pod["volumes"]} == set(names)
    places = LAID_DOWN["properties"]["extraVolumeMounts"]["items"]["properties"]["mountPath"]["not"]["enum"]
    assert {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]} <= set(places)


def test_the_last_good_policies_are_on_the_disk_of_the_node() -> None:
    """Unless that is turned off: then there is neither a volume nor the key."""
    for enabled in (True, False):
        objects = render({"policies": {"lastGood": {"enabled": enabled}}})
        pod = by_kind(objects, "DaemonSet")["spec"]["template"]["spec"]
        paths = {volume["name"]: volume.get("hostPath", {}).get("path") for volume in pod["volumes"]}
        assert (paths.get("last-good") == "/var/lib/ringfence-policies") == enabled
        (config,) = (one for one in objects if one["kind"] == "ConfigMap" and "agent.yaml" in one["data"])
        assert ("policies_kept" in yaml.safe_load(config["data"]["agent.yaml"])) == enabled


def test_the_readme_has_every_value() -> None:
    """After a change of values: `python3 -m tools.chart_readme`."""
    assert README.read_text() == made()
    named = {row.key for row in rows()}
    assert all(any(key == path or key.startswith(f"{path}.") for key in named) for path in VALUES)


def test_the_metadata_is_complete() -> None:
    """What `ct lint` and Artifact Hub ask for; helm has nothing to recommend."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert {"home", "icon", "sources", "maintainers", "keywords", "kubeVersion"} <= set(about)
    assert (CHART / about["icon"].rpartition("/")[2]).exists()
    assert "[INFO]" not in run("lint", str(CHART)).stdout
