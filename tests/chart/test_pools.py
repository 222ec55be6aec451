# SPDX-License-Identifier: Apache-2.0
"""Node pools: each has a DaemonSet of its own, and each node belongs to exactly one.

Nodes are made up here, and matched as the scheduler does it (`nodes_of`), so the tests see what a node gets.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from ringfence.config import load
from ringfence.policy.load import load_bytes
from tests.chart.helm import CHART, Object, Refused, by_kind, render, run
from tests.chart.test_chart import OPERATOR, VERSIONS
from tools.chart_schema import POOL_KEYS

LABEL = "cloud.example/pool"
GPU = {"nodeSelector": {LABEL: "gpu"}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
POOLS: dict[str, Any] = {
    "gpu": {
        **GPU, "mode": "enforce", "resources": {"limits": {"memory": "512Mi"}},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "config": {"audit": {"interval": 900}}, "policies": {"optional": ["hot"]},
    },
    "db": {"nodeSelector": {LABEL: "db", "zone": "a"}, "updateStrategy": {"type": "OnDelete"}},
}  # fmt: skip
EVERYTHING = {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}}


def affinity(*terms: list[Object]) -> Object:
    """A required node affinity: one of these lists of expressions."""
    alternatives = [{"matchExpressions": term} for term in terms]
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": alternatives}}}}


def expression(key: str, operator: str, *values: str) -> Object:
    """One requirement on a label."""
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def holds(one: Object, labels: Mapping[str, str]) -> bool:
    """As k8s.io/apimachinery/pkg/labels, Requirement.Matches: without the label, NotIn holds."""
    value = labels.get(one["key"])
    return {
        "In": value is not None and value in one.get("values", []),
        "NotIn": value is None or value not in one.get("values", []),
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[str(one["operator"])]


def is_on(pod: Object, labels: Mapping[str, str]) -> bool:
    """Returns True if a DaemonSet runs this pod on a node with these labels (taints are left out)."""
    if any(labels.get(key) != value for key, value in pod.get("nodeSelector", {}).items()):
        return False
    required = pod.get("affinity", {}).get("nodeAffinity", {}).get(REQUIRED)
    if required is None:
        return True
    return any(
        term.get("matchExpressions") and all(holds(one, labels) for one in term["matchExpressions"])
        for term in required["nodeSelectorTerms"]
    )


def nodes(**values: list[str | None]) -> Iterator[dict[str, str]]:
    """Nodes with every combination of labels; None: without this one."""
    for chosen in itertools.product(*values.values()):
        labels = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        labels |= {key: value for key, value in zip(values, chosen, strict=True) if value is not None}
        yield labels


def pods(objects: list[Object], kind: str = "DaemonSet") -> dict[str, Object]:
    """The pods of all pools, by the pool's name; the default pool's is empty."""
    found = [one for one in objects if one["kind"] == kind]
    specs = [one["spec"] if kind == "Pod" else one["spec"]["template"]["spec"] for one in found]
    names = [one["metadata"]["labels"].get("ringfence.dev/pool", "") for one in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, specs, strict=True))


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    """A release with two pools and everything that is optional."""
    return render({"nodePools": POOLS, "podMonitor": {"enabled": True}, **EVERYTHING})


@pytest.mark.parametrize(
    ("version", "monitor"), [*zip(VERSIONS, ["podMonitor", "serviceMonitor"] * 2, strict=True)]
)
def test_kubernetes_takes_the_pools(version: str, monitor: str) -> None:
    """Strict schemas; and no two objects have one name."""
    found = render({"nodePools": POOLS, monitor: {"enabled": True}, **EVERYTHING}, kubernetes=f"{version}.0")
    for one in found:
        if one["apiVersion"] == "monitoring.coreos.com/v1":
            jsonschema.validate(one, {**OPERATOR, "$ref": f"#/definitions/{one['kind']}"})
        else:
            kubernetes_validate.validate(one, version, strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(names)) == len(names)


def test_the_default_pool_stays_as_it_is(objects: list[Object]) -> None:
    """Pools add objects. Of the others, only what must leave out or include the pools differs."""
    before = {(one["kind"], one["metadata"]["name"]): one for one in render({
        "podMonitor": {"enabled": True}, **EVERYTHING,
    })}  # fmt: skip
    after = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    added = {kind for kind, name in set(after) - set(before)}
    assert added == {"DaemonSet", "Service", "ConfigMap", "Pod"}
    changed = {kind for kind, name in before if before[kind, name] != after[kind, name]}
    assert changed == {"DaemonSet", "Pod", "PodMonitor", "NetworkPolicy", "PrometheusRule"}
    daemonset = ("DaemonSet", "rf-ringfence")
    without = copy.deepcopy(after[daemonset])
    del without["spec"]["template"]["spec"]["affinity"]
    assert without == before[daemonset], "its selector could not be changed by an upgrade"


def test_values_of_a_pool_override_those_of_the_chart(objects: list[Object]) -> None:
    """In its pod and in its configuration, which the agent takes; the rest is the chart's."""
    found = pods(objects)
    assert set(found) == {"", "gpu", "db"}
    assert found["gpu"]["tolerations"] == POOLS["gpu"]["tolerations"]
    assert found["db"]["tolerations"] == found[""]["tolerations"] == [{"operator": "Exists"}]
    resources = {pool: pod["containers"][0]["resources"] for pool, pod in found.items()}
    assert resources["gpu"] == {**resources[""], "limits": {"memory": "512Mi"}}
    assert resources["db"] == resources[""]
    strategies = {
        one["metadata"]["name"]: one["spec"]["updateStrategy"]["type"]
        for one in objects
        if one["kind"] == "DaemonSet"
    }
    assert strategies == {
        "rf-ringfence": "RollingUpdate", "rf-ringfence-db": "OnDelete", "rf-ringfence-gpu": "RollingUpdate"
    }  # fmt: skip


def maps(pod: Object) -> dict[str, str]:
    """Volumes of a pod that are ConfigMaps, and their names."""
    return {one["name"]: one["configMap"]["name"] for one in pod["volumes"] if "configMap" in one}


def test_a_pool_has_config_maps_where_it_differs(objects: list[Object], tmp_path: Path) -> None:
    """`gpu` has another mode and other policies; `db` has those of the default pool."""
    found = pods(objects)
    assert (
        maps(found["db"])
        == maps(found[""])
        == {"config": "rf-ringfence", "policies": "rf-ringfence-policies"}
    )
    mine = maps(found["gpu"])
    assert mine == {"config": "rf-ringfence-gpu", "policies": "rf-ringfence-gpu-policies"}
    file = tmp_path / "agent.yaml"
    file.write_text(by_kind(objects, "ConfigMap", mine["config"])["data"]["agent.yaml"])
    taken = load(file, {"RINGFENCE_KUBERNETES_NODE": "node-1"})
    assert (taken.mode, taken.audit_interval) == ("enforce", 900)
    names = [
        by_kind(objects, "ConfigMap", name)["data"].keys()
        for name in ("rf-ringfence-policies", mine["policies"])
    ]
    assert names[1] - names[0] == {"optional-hot.yaml"}
    data = by_kind(objects, "ConfigMap", mine["policies"])["data"]
    assert load_bytes({name: text.encode() for name, text in data.items()}).rules


def test_policies_alone_do_not_restart_a_pool() -> None:
    """Its configuration is the default pool's, and its agents read the policies again."""
    plain, other = (
        pods(render({"nodePools": {"gpu": {**GPU, "policies": policies}}}))["gpu"]
        for policies in ({"optional": ["hot"]}, {"except": {"namespaces": "kube-system"}})
    )
    assert plain == other
    assert maps(plain)["config"] == "rf-ringfence"


def test_no_selector_takes_pods_of_another_pool(objects: list[Object]) -> None:
    """A DaemonSet or a service chooses its own pool's pods; policy and monitor choose the agents of all."""
    labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
              for one in objects if one["kind"] == "DaemonSet"}  # fmt: skip
    tests = {one["metadata"]["name"]: one["metadata"]["labels"] for one in objects if one["kind"] == "Pod"}
    for one in objects:
        if one["kind"] not in ("DaemonSet", "Service"):
            continue
        selector = one["spec"]["selector"]
        chosen = selector.get("matchLabels", selector).items()
        taken = [name for name, has in {**labels, **tests}.items() if chosen <= has.items()]
        assert taken == [one["metadata"]["name"]]
    policy, monitor = (by_kind(objects, kind)["spec"] for kind in ("NetworkPolicy", "PodMonitor"))
    for selector in (policy["podSelector"], monitor["selector"]):
        expressions = [expression(key, "In", value) for key, value in selector["matchLabels"].items()]
        expressions += selector["matchExpressions"]
        assert all(holds(one, has) for one in expressions for has in labels.values())
        assert not any(all(holds(one, has) for one in expressions) for has in tests.values())


def test_the_service_monitor_has_the_services_of_all_pools() -> None:
    """By the labels of the release."""
    found = render({"nodePools": POOLS, "serviceMonitor": {"enabled": True}})
    chosen = by_kind(found, "ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    services = [one for one in found if one["kind"] == "Service"]
    assert len(services) == 3
    assert all(chosen <= one["metadata"]["labels"].items() for one in services)


def test_series_say_the_pool(objects: list[Object]) -> None:
    """From the label of the agents' pods; job and rules are the same for all pools."""
    (endpoint,) = by_kind(objects, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert {
        "action": "replace", "sourceLabels": ["__meta_kubernetes_pod_label_ringfence_dev_pool"],
        "targetLabel": "pool",
    } in endpoint["relabelings"]  # fmt: skip
    for one in objects:
        if one["kind"] == "DaemonSet":
            template = one["spec"]["template"]["metadata"]["labels"]
            pool = one["metadata"]["labels"].get("ringfence.dev/pool")
            assert template.get("ringfence.dev/pool") == pool
            assert one["metadata"]["name"] == "rf-ringfence" + (f"-{pool}" if pool else "")
            assert template["app.kubernetes.io/name"] == "ringfence", "the job of rules and dashboards"


def test_the_rules_are_for_the_daemonsets_of_all_pools(objects: list[Object]) -> None:
    """RingfenceAgentMissing names them; RingfenceAuditStale waits for the slowest."""
    groups = by_kind(objects, "PrometheusRule")["spec"]["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"] if "alert" in rule}
    names = '{daemonset=~"rf-ringfence|rf-ringfence-db|rf-ringfence-gpu", namespace="security"}'
    assert rules["RingfenceAgentMissing"].count(names) == 2
    assert rules["RingfenceAuditStale"].startswith("time() - 2700 > "), "three rounds of 900 s"


def test_helm_test_attacks_in_every_pool(objects: list[Object]) -> None:
    """On a node of the pool, with the pool's mode and agents."""
    tests, agents = pods(objects, "Pod"), pods(objects)
    for pool, pod in tests.items():
        variables = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        suffix = f"-{pool}" if pool else ""
        assert variables["AGENTS"] == f"rf-ringfence{suffix}.security.svc"
        assert variables["MODE"] == ("enforce" if pool == "gpu" else "audit")
        for labels in nodes(**{LABEL: ["gpu", "db", None], "zone": ["a", None]}):
            assert is_on(pod, labels) == is_on(agents[pool], labels)
    assert tests["gpu"]["tolerations"] == POOLS["gpu"]["tolerations"]
    without = render({"nodePools": {"gpu": {**GPU, "test": {"enabled": False}}}})
    assert set(pods(without, "Pod")) == {""}


def test_notes_name_the_pools() -> None:
    """Their modes, and how to wait for them."""
    set_ = f"nodePools.gpu.mode=enforce,nodePools.gpu.nodeSelector.{LABEL.replace('.', chr(92) + '.')}=gpu"
    done = run("install", "rf", str(CHART), "--dry-run=client", "--namespace", "security", "--set", set_)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "Nodes of the pool gpu (ds/rf-ringfence-gpu) are in mode enforce." in notes
    assert "rollout status ds/rf-ringfence-gpu" in notes
    assert "app.kubernetes.io/component!=test" in notes


ZONES: list[str | None] = ["a", "b", "c", None]
DISJOINT: tuple[dict[str, Any], ...] = (
    {"one": GPU},
    {"one": {"nodeSelector": {LABEL: "gpu", "zone": "a"}}},
    {"one": {"nodeSelector": {LABEL: "gpu", "zone": "a"}},
     "two": {"nodeSelector": {LABEL: "gpu", "zone": "b"}}},
    {"one": GPU, "two": {"nodeSelector": {LABEL: "db"}},
     "three": {"nodeSelector": {LABEL: "web", "zone": "b"}}},
    {"one": affinity([expression(LABEL, "In", "gpu", "db")]), "two": {"nodeSelector": {LABEL: "web"}}},
    {"one": affinity([expression(LABEL, "In", "gpu")], [expression("zone", "In", "a")]),
     "two": affinity([expression(LABEL, "DoesNotExist"), expression("zone", "NotIn", "a")])},
    {"one": affinity([expression(LABEL, "Exists")]), "two": affinity([expression(LABEL, "DoesNotExist"),
                                                                  expression("zone", "In", "a")])},
    {"one": {**affinity([expression("zone", "NotIn", "a", "b")]), **GPU},
     "two": {**affinity([expression("zone", "In", "a")]), **GPU}},
    {"one": {"nodeSelector": {"kubernetes.io/arch": "arm64"}},
     "two": {"nodeSelector": {LABEL: "gpu"}}},
    {"one": {"nodeSelector": {"kubernetes.io/os": "linux", LABEL: "gpu"}}},
)  # fmt: skip


@functools.cache
def rendered_alone(base: str) -> list[Object]:
    """A release without pools."""
    return render(json.loads(base))


@pytest.mark.parametrize(
    "base", [{}, affinity([expression("zone", "In", "a", "b")], [expression("zone", "In", "c")])]
)
@pytest.mark.parametrize("pools", DISJOINT)
def test_every_node_has_exactly_one_agent(pools: dict[str, Any], base: dict[str, Any]) -> None:
    """Of a pool or of the default pool; nodes outside all have none, as without pools."""
    found = pods(render({"nodePools": pools, **base}))
    (alone,) = pods(rendered_alone(json.dumps(base))).values()
    values: dict[str, list[str | None]] = {
        LABEL: ["gpu", "db", "web", "other", None],
        "zone": ZONES,
        "kubernetes.io/arch": ["amd64", "arm64"],
    }
    reached = set()
    for labels in nodes(**values):
        agents = [pool for pool, pod in found.items() if is_on(pod, labels)]
        assert len(agents) <= 1, labels
        assert len(agents) >= is_on(alone, labels), labels
        reached.update(agents)
    assert reached == {"", *pools}, "a case without nodes would show nothing"


@pytest.mark.parametrize(
    "other",
    [
        GPU,
        {"nodeSelector": {"zone": "a"}},
        {"nodeSelector": {LABEL: "gpu", "zone": "a"}},
        affinity([expression(LABEL, "NotIn", "db")]),
        affinity([expression(LABEL, "Exists")]),
        affinity([expression(LABEL, "In", "db")], [expression("zone", "In", "a")]),
        affinity([expression("zone", "DoesNotExist")]),
    ],
)
def test_pools_that_could_share_a_node_are_refused(other: dict[str, Any]) -> None:
    """Whether such a node exists or not: the second agent would not start there."""
    with pytest.raises(Refused, match=r"nodePools\.two: a node can be in this pool and in nodePools\.one"):
        render({"nodePools": {"one": GPU, "two": other}})


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        ({"gpu": {"mode": "enforce"}}, "at '/nodePools/gpu'"),
        ({"gpu": {"nodeSelector": {}}}, "at '/nodePools/gpu'"),
        ({"gpu": {**GPU, "mode": "enforced"}}, "at '/nodePools/gpu/mode'"),
        ({"gpu": {**GPU, "config": {"activity": {"speed": 3}}}}, "at '/nodePools/gpu/config/activity'"),
        ({"gpu": {**GPU, "config": {"mode": "enforce"}}}, "at '/nodePools/gpu/config'"),
        ({"gpu": {**GPU, "image": {"tag": "x"}}}, "additional properties 'image' not allowed"),
        ({"gpu": affinity([expression("cores", "Gt", "8")])}, "operator"),
        ({"gpu": affinity([expression(LABEL, "In")])}, "missing property 'values'"),
        ({"gpu": affinity([])}, "matchExpressions"),
        ({"GPU": GPU}, "nodePools.GPU: is not a name"),
        ({"default": GPU}, "nodePools.default: the chart has other objects of this name"),
        ({"policies": GPU}, "nodePools.policies: the chart has other objects of this name"),
        ({"gpu-policies": GPU}, "nodePools.gpu-policies: the chart has other objects of this name"),
        ({"gpu": {"nodeSelector": {"kubernetes.io/os": "linux"}}},
         "nodePools.gpu: it has all nodes of the chart's nodeSelector"),
        ({"gpu": {**GPU, "resources": {"limits": {"memory": "8Mi"}}}},
         "nodePools.gpu.resources.limits.memory: 8Mi is less than 96Mi"),
        ({"gpu": {**GPU, "runtime": "none", "runtimeDirectory": "/run/x"}}, "nodePools.gpu.runtime: is none"),
        ({"gpu": {**GPU, "policies": {"pack": False}}}, "nodePools.gpu.policies.pack: is false"),
        ({"gpu": {**GPU, "policies": {"existingConfigMap": "x"}}},
         "nodePools.gpu.policies.existingConfigMap: it replaces"),
        ({"gpu": {**GPU, "policies": {"optional": ["none"]}}},
         'nodePools.gpu.policies.optional: there is no policy "none"'),
        ({"gpu": {**GPU, "policies": {"extra": {"a.yaml": "kind: ConfigMap"}}}},
         "nodePools.gpu.policies.extra.a.yaml: is not a policy"),
        ({"gpu": {**GPU, "config": {"observe": {"cgroup.mkdir": "off"}}}}, "nodePools.gpu.config.observe"),
        ({"a" * 40: GPU}, "longer than 63 characters"),
        ({f"p{n}": {"nodeSelector": {f"a{n}": "a", f"b{n}": "b", "only": f"{n}"}} for n in range(5)},
         "cannot leave out the nodes of all pools in 64 alternatives"),
    ],
)  # fmt: skip
def test_mistakes_in_a_pool_are_refused_by_helm(pools: dict[str, Any], words: str) -> None:
    """With the pool and the value."""
    with pytest.raises(Refused) as refused:
        render({"nodePools": pools}, release="the-long-name-of-a-release")
    assert words in str(refused.value)


def test_a_pool_can_turn_off_what_the_chart_turns_on() -> None:
    """Empty and false values override, too; another ConfigMap replaces the pack."""
    policies = {"pack": False, "existingConfigMap": "mine"}
    pool = {**GPU, "policies": policies, "tolerations": [], "test": {"enabled": False}}
    pod = pods(render({"nodePools": {"gpu": pool}}))["gpu"]
    assert maps(pod)["policies"] == "mine"
    assert "tolerations" not in pod


def test_every_key_of_a_pool_is_described_and_the_examples_are_taken() -> None:
    """In values.yaml, and in docs/reference/kubernetes.md."""
    text = (CHART / "values.yaml").read_text()
    comment = text[: text.index("\nnodePools: {}")].rpartition("\n\n")[2]
    assert all(key in comment for key in (*POOL_KEYS, "affinity"))
    example = "\n".join(line[4:] for line in comment.splitlines() if line.startswith("#   "))
    assert set(pods(render(yaml.safe_load(example)))) == {"", "gpu"}
    page = (CHART.parents[1] / "docs/reference/kubernetes.md").read_text().partition("\n## Node pools\n")[2]
    example = page[page.index("    nodePools:") :].partition("\n\n")[0]
    assert set(pods(render(yaml.safe_load(example)))) == {"", "canary", "gpu"}
