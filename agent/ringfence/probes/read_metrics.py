# SPDX-License-Identifier: Apache-2.0
"""The metrics of a probe's YAML, and numbers with bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal, cast

from ringfence.policy.conditions import suggestion
from ringfence.policy.fields import Diagnostics
from ringfence.policy.model import Place
from ringfence.policy.reader import Node, Scalar, SequenceNode
from ringfence.probes.definition import Field, Metric

__all__ = [
    "DEFAULT_SERIES",
    "MAX_BUCKETS",
    "MAX_LABELS",
    "MAX_METRICS",
    "MAX_SERIES",
    "METRIC_NAME",
    "integer",
]
__all__ += ["read_metrics"]

METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
DEFAULT_SERIES, MAX_SERIES = 200, 2000
MAX_METRICS, MAX_LABELS, MAX_BUCKETS = 16, 4, 32
KEYS = ("name", "type", "help", "value", "scale", "buckets", "labels", "container", "max_series")
_RESERVED = ("container", "probe", "le")
_FLOAT = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")


def integer(
    diagnostics: Diagnostics, keys: Mapping[str, Node], key: str, default: int, low: int, high: int
) -> int:
    """Returns a number within bounds, or the default after a mistake."""
    node = keys.get(key)
    if node is None:
        return default
    if isinstance(node, Scalar) and node.kind == "int" and low <= int(node.text, 0) <= high:
        return int(node.text, 0)
    diagnostics.add(node, key, f"must be a number from {low} to {high}")
    return default


def read_metrics(
    diagnostics: Diagnostics, node: Node | None, fields: Mapping[str, Field]
) -> tuple[Metric, ...]:
    """Reads the list under `metrics`."""
    if node is None:
        return ()
    if not isinstance(node, SequenceNode) or not 1 <= len(node.items) <= MAX_METRICS:
        diagnostics.add(node, "spec.metrics", f"must be a list of 1 to {MAX_METRICS} metrics")
        return ()
    found: list[Metric] = []
    for index, item in enumerate(node.items):
        metric = _metric(diagnostics, item, f"spec.metrics[{index}]", fields)
        if metric is not None:
            if any(metric.name == other.name for other in found):
                diagnostics.add(item, f"spec.metrics[{index}].name", f"{metric.name!r} is duplicate")
            found.append(metric)
    return tuple(found)


def _metric(diagnostics: Diagnostics, node: Node, where: str, fields: Mapping[str, Field]) -> Metric | None:
    keys = diagnostics.mapping(node, where, KEYS, ("name", "type", "help"))
    if keys is None:
        return None
    kind = (
        diagnostics.choice(keys["type"], f"{where}.type", ("counter", "histogram"))
        if "type" in keys
        else None
    )
    name = ""
    if "name" in keys:
        name = diagnostics.text(keys["name"], f"{where}.name", METRIC_NAME, "a name of a-z, 0-9 and `_`")
    if name.endswith(("_total", "_bucket", "_count", "_sum")):
        diagnostics.add(keys["name"], f"{where}.name", "must not end in a suffix that Prometheus adds itself")
    value = (
        _field(diagnostics, keys["value"], f"{where}.value", fields, numbers=True) if "value" in keys else ""
    )
    buckets = _buckets(diagnostics, keys["buckets"], f"{where}.buckets") if "buckets" in keys else ()
    if kind == "histogram":
        for key in ("value", "buckets"):
            if key not in keys:
                diagnostics.add(node, where, f"{key!r} is missing: a histogram needs a field and buckets")
    elif "buckets" in keys:
        diagnostics.add(keys["buckets"], f"{where}.buckets", "only a histogram can have buckets")
    if "scale" in keys and "value" not in keys:
        diagnostics.add(keys["scale"], f"{where}.scale", "needs a `value`")
    return Metric(
        name=name,
        type=cast(Literal["counter", "histogram"], kind or "counter"),
        help=diagnostics.text(keys["help"], f"{where}.help") if "help" in keys else "",
        value=value,
        scale=_number(diagnostics, keys["scale"], f"{where}.scale") if "scale" in keys else 1.0,
        buckets=buckets,
        labels=_labels(diagnostics, keys["labels"], f"{where}.labels", fields) if "labels" in keys else (),
        by_container="container" not in keys
        or diagnostics.boolean(keys["container"], f"{where}.container") is not False,
        max_series=integer(diagnostics, keys, "max_series", DEFAULT_SERIES, 1, MAX_SERIES),
        place=Place(diagnostics.file, node.line, node.column),
    )


def _field(
    diagnostics: Diagnostics, node: Node, where: str, fields: Mapping[str, Field], *, numbers: bool = False
) -> str:
    name = diagnostics.text(node, where, expected="the name of a field")
    if name and name not in fields:
        diagnostics.add(node, where, f"{name!r} is not one of `fields`{suggestion(name, [*fields])}")
    elif name and numbers and fields[name].kind != "number":
        diagnostics.add(node, where, f"{name!r} is not a number")
    return name


def _labels(diagnostics: Diagnostics, node: Node, where: str, fields: Mapping[str, Field]) -> tuple[str, ...]:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    if not 1 <= len(items) <= MAX_LABELS:
        diagnostics.add(node, where, f"must list 1 to {MAX_LABELS} fields")
    found: list[str] = []
    for index, item in enumerate(items):
        name = _field(diagnostics, item, f"{where}[{index}]", fields)
        if name in _RESERVED or name.startswith("__"):
            diagnostics.add(item, where, f"{name!r} is reserved: the agent or Prometheus sets this label")
        elif name in found:
            diagnostics.add(item, where, f"{name!r} is duplicate")
        found.append(name)
    return tuple(found)


def _buckets(diagnostics: Diagnostics, node: Node, where: str) -> tuple[float, ...]:
    if not isinstance(node, SequenceNode) or not 1 <= len(node.items) <= MAX_BUCKETS:
        diagnostics.add(node, where, f"must be a list of 1 to {MAX_BUCKETS} upper bounds")
        return ()
    bounds = tuple(_number(diagnostics, item, where) for item in node.items)
    if list(bounds) != sorted(set(bounds)):
        diagnostics.add(node, where, "must be in increasing order")
    return bounds


def _number(diagnostics: Diagnostics, node: Node, where: str) -> float:
    if isinstance(node, Scalar) and _FLOAT.fullmatch(node.text) and math.isfinite(float(node.text)):
        return float(node.text)
    diagnostics.add(node, where, "must be a number")
    return 0.0
