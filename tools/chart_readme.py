# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.chart_readme`: the chart's README, with a table of its values as helm-docs makes it.

The descriptions are the comments above each key of values.yaml. A test compares the file.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

__all__ = ["README", "Row", "made", "rows"]

CHART = Path(__file__).resolve().parents[1] / "charts/ringfence"
README = CHART / "README.md"
_HEAD = """\
# {name}

Version: {version} | Type: {type} | AppVersion: {appVersion}

{about}

**Homepage:** <{home}>

## Installing

    helm install ringfence ./charts/ringfence --namespace ringfence --create-namespace

The agents start in mode audit: they stop nothing, and report what mode enforce would stop.

## Upgrading

    helm upgrade ringfence ./charts/ringfence --namespace ringfence --reset-then-reuse-values

`--reset-then-reuse-values` takes the new chart's defaults and then your values. `--reuse-values`
keeps the old defaults: new keys are missing then, and keys that a version removed are refused.

The chart's policies are copies of `policies/` of the project (`python3 -m tools.chart_policies`).
How agents are updated, and what stays in the kernel when the chart is removed:
[kubernetes.md]({home}/blob/main/docs/reference/kubernetes.md).

## Maintainers

| Name | Url |
|------|-----|
{maintainer_rows}

## Source Code

{source_lines}

## Requirements

Kubernetes: `{kubeVersion}`. The rules need Prometheus 2.42.

## Values

| Key | Type | Default | Description |
|-----|------|---------|-------------|
"""
_TYPES = {str: "string", bool: "bool", int: "int", float: "float", list: "list", dict: "object"}


class Row(NamedTuple):
    """One value: its path, its default and its description."""

    key: str
    default: Any
    text: str


def rows() -> Iterator[Row]:
    """Yields every value, in alphabetical order, as helm-docs does. A mapping with comments is divided."""
    text = (CHART / "values.yaml").read_text()
    node = yaml.compose(text)
    yield from sorted(_rows(node, yaml.safe_load(text), text.splitlines(), ""))


def _rows(node: Any, value: Any, lines: list[str], above: str) -> Iterator[Row]:
    for key, child in node.value:
        path = f"{above}{key.value}"
        block = isinstance(child, yaml.MappingNode) and not child.flow_style
        if block and child.value:
            yield from _rows(child, value[key.value], lines, f"{path}.")
        else:
            text = _comment(lines, key.start_mark.line)
            yield Row(path, value[key.value], text or _comment(lines, node.start_mark.line - 1))


def _comment(lines: list[str], line: int) -> str:
    """Returns the comment above a line."""
    found: list[str] = []
    while line and lines[line - 1].strip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].strip().lstrip("#").strip())
    return " ".join(found)


def made() -> str:
    """Returns the page."""
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    table = "".join(
        f"| {row.key} | {_TYPES[type(row.default)]} | `{json.dumps(row.default)}` | {_cell(row.text)} |\n"
        for row in rows()
    )
    wrapped = "\n".join(textwrap.wrap(about["description"], 100))
    maintainers = "\n".join(f"| {one['name']} | <{one['url']}> |" for one in about["maintainers"])
    sources = "\n".join(f"* <{one}>" for one in about["sources"])
    head = _HEAD.format(**about, about=wrapped, maintainer_rows=maintainers, source_lines=sources)
    return head + table


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Writes the file."""
    README.write_text(made())
    return 0


if __name__ == "__main__":
    sys.exit(main())
