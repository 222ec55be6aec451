# SPDX-License-Identifier: Apache-2.0
"""The rule files of the chart, as values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["FILES", "Alert", "alerts", "documented", "expressions", "groups", "metrics_of"]

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "charts/ringfence/rules").glob("*.yaml"))
_NAME = re.compile(r"\b(?:ringfence|process|kube|up)(?:_[a-z0-9_]+)?\b(?!\s*=)")
_ROW = re.compile(r"^\| `((?:ringfence|process)_[a-z0-9_]+)` \|", re.M)
_TEXTS = re.compile(r"\"[^\"]*\"|\b(?:by|on|ignoring|group_left|group_right)\s*\([^)]*\)")


class Alert(NamedTuple):
    """One alerting rule."""

    name: str
    expression: str
    labels: dict[str, str]
    annotations: dict[str, str]


def groups() -> list[dict[str, Any]]:
    """Every group of every file."""
    return [group for path in FILES for group in yaml.safe_load(path.read_text())["groups"]]


def alerts() -> list[Alert]:
    """Every alerting rule."""
    return [
        Alert(rule["alert"], rule["expr"], rule.get("labels", {}), rule["annotations"])
        for group in groups()
        for rule in group["rules"]
        if "alert" in rule
    ]


def expressions() -> dict[str, str]:
    """What each rule evaluates, by the name that it alerts or records as."""
    rules = [rule for group in groups() for rule in group["rules"]]
    return {rule.get("alert") or rule["record"]: rule["expr"] for rule in rules}


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression reads: recorded ones have colons in their names and are left out."""
    bare = re.sub(r"\bringfence(?::[a-z0-9_]+)+", "", _TEXTS.sub("", expression))
    return set(_NAME.findall(bare))


def documented() -> set[str]:
    """The series that docs/reference/metrics.md describes."""
    page = (ROOT / "docs/reference/metrics.md").read_text()
    names = set(_ROW.findall(page))
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "sum", "count")}
