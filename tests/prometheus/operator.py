# SPDX-License-Identifier: Apache-2.0
"""The scrape configuration that the Prometheus operator generates for the chart's PodMonitor.

The operator's labels of every target (namespace, container, pod, endpoint, and job by `jobLabel`) precede
the monitor's own relabelings, in the order of its generator, as in a cluster. `labels_of` simulates
Prometheus' own discovery and returns its `__meta_kubernetes_*` labels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tests.chart.helm import by_kind, render

__all__ = ["AGENT_POD", "labels_of", "monitored", "scrape_config", "static"]

Object = dict[str, Any]
AGENT_POD = "rf-ringfence"  # an agent's pod is named so, and by its node
_WORDS = {"sourceLabels": "source_labels", "targetLabel": "target_label"}


def scrape_config(monitor: Object) -> Object:
    """Of its one endpoint, but where the targets come from."""
    spec = monitor["spec"]
    (endpoint,) = spec["podMetricsEndpoints"]
    where = monitor["metadata"]
    return {
        "job_name": f"podMonitor/{where['namespace']}/{where['name']}/0",
        "honor_labels": endpoint.get("honorLabels", False),
        "metrics_path": endpoint["path"],
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["scrapeTimeout"],
        "relabel_configs": [*_added(spec, endpoint), *map(_relabeling, endpoint.get("relabelings", []))],
        "metric_relabel_configs": list(map(_relabeling, endpoint.get("metricRelabelings", []))),
    }


def _added(spec: Object, endpoint: Object) -> list[Object]:
    chosen = [
        {"action": "keep", "source_labels": [_meta(f"label_{name}"), _meta(f"labelpresent_{name}")],
         "regex": f"({re.escape(value)});true"}
        for name, value in spec["selector"]["matchLabels"].items()
    ]  # fmt: skip
    return [
        {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"},
        {"action": "drop", "source_labels": [_meta("phase")], "regex": "(Failed|Succeeded)"},
        *chosen,
        {"action": "keep", "source_labels": [_meta("container_port_name")], "regex": endpoint["port"]},
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": [_meta("container_name")], "target_label": "container"},
        {"source_labels": [_meta("name")], "target_label": "pod"},
        {"target_label": "job", "replacement": "security/ringfence"},
        {"source_labels": [_meta(f"label_{spec['jobLabel']}")], "target_label": "job", "regex": "(.+)",
         "replacement": "${1}"},
        {"target_label": "endpoint", "replacement": endpoint["port"]},
    ]  # fmt: skip


def _meta(name: str) -> str:
    """The label of Prometheus' discovery: what is no letter or digit is an underscore."""
    return "__meta_kubernetes_pod_" + re.sub(r"[^A-Za-z0-9_]", "_", name)


def _relabeling(one: Object) -> Object:
    return {_WORDS.get(key, key): value for key, value in one.items()}


def monitored(agents: Mapping[str, int]) -> Object:
    """The scrape of agents (node -> port of 127.0.0.1) by the chart's PodMonitor, with the labels of pods."""
    objects = render({"podMonitor": {"enabled": True, "interval": "5s"}})
    template = by_kind(objects, "DaemonSet")["spec"]["template"]
    config = scrape_config(by_kind(objects, "PodMonitor"))
    found: list[Object] = []
    for node, port in agents.items():
        pod = {
            "metadata": {
                "name": f"{AGENT_POD}-{node}", "namespace": "security",
                "labels": template["metadata"]["labels"],
            },
            "spec": {**template["spec"], "nodeName": node},
            "status": {"phase": "Running"},
        }  # fmt: skip
        found += static(config, pod, f"127.0.0.1:{port}")["static_configs"]
    return {**config, "static_configs": found}


def static(config: Object, pod: Object, address: str) -> Object:
    """The scrape of one pod, found for good."""
    return {**config, "static_configs": [{"targets": [address], "labels": labels_of(pod)}]}


def labels_of(pod: Object) -> dict[str, str]:
    """What Prometheus' discovery says of a pod that the API server has, and of its first port."""
    container = pod["spec"]["containers"][0]
    labels = {
        "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
        _meta("name"): pod["metadata"]["name"],
        _meta("node_name"): pod["spec"]["nodeName"],
        _meta("phase"): pod["status"]["phase"],
        _meta("container_name"): container["name"],
        _meta("container_port_name"): container["ports"][0]["name"],
    }
    for key, value in pod["metadata"]["labels"].items():
        labels |= {_meta(f"label_{key}"): value, _meta(f"labelpresent_{key}"): "true"}
    return labels
