# SPDX-License-Identifier: Apache-2.0
"""The dashboards against Grafana's own types (npm @grafana/schema), by the TypeScript compiler.

No Grafana runs here: what its types say of a dashboard, of each kind of panel's options and of its fields is
what the files must be. An unknown or misspelt field is an error.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.force import elsewhere
from tools.dashboards import DIRECTORY

pytestmark = pytest.mark.slow

PACKAGES = ("@grafana/schema@11.6.0", "typescript@5.4.5")
CACHE = Path(__file__).resolve().parents[2] / "build/grafana"
COMPOSABLE = "@grafana/schema/dist/esm/raw/composable"
# Grafana's enums are nominal: JSON has their words. A mapped type turns each enum into the words.
HEAD = f"""\
import type {{ Dashboard, DataTransformerConfig, GraphFieldConfig, TableFieldOptions }}
  from '@grafana/schema';
import type {{ Options as Stat }} from '{COMPOSABLE}/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {{ Options as States, FieldConfig as StatesField }}
  from '{COMPOSABLE}/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {{ Options as Table }} from '{COMPOSABLE}/table/panelcfg/x/TablePanelCfg_types.gen';
import type {{ Options as Series }} from '{COMPOSABLE}/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
type Plain<T> = T extends string ? `${{T}}` : T extends object ? {{ [K in keyof T]: Plain<T[K]> }} : T;
type Part<T> = T extends object ? {{ [K in keyof T]?: Part<T[K]> }} : T;
type Given<T> = Part<Plain<T>>;
"""
OPTIONS = {"stat": "Stat", "table": "Table", "timeseries": "Series", "state-timeline": "States"}
CUSTOM = {
    "stat": "{}", "table": "TableFieldOptions", "timeseries": "GraphFieldConfig",
    "state-timeline": "StatesField",
}  # fmt: skip


@pytest.fixture(scope="module")
def compiler() -> Path:
    """tsc, beside Grafana's types; fetched once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        elsewhere("needs npm, for Grafana's types")
    found = CACHE / "node_modules/.bin/tsc"
    if not found.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        (CACHE / "package.json").write_text("{}")
        argv = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", *PACKAGES]
        done = subprocess.run(argv, cwd=CACHE, capture_output=True, text=True, check=False)
        if done.returncode:
            elsewhere(f"Grafana's types cannot be had: {done.stderr.strip()[-200:]}")
    return found


def _checks(page: dict[str, Any]) -> Iterator[str]:
    """Lines of TypeScript that compile if this dashboard is one."""
    name = page["uid"].replace("-", "_")
    # The expression of an annotation belongs to the data source, whose types are not in this package.
    bare = [{key: one[key] for key in one if key != "expr"} for one in page["annotations"]["list"]]
    page = {**page, "annotations": {"list": bare}}
    yield f"export const {name}: Given<Dashboard> = {json.dumps(page)};"
    for panel in page["panels"]:
        kind, number = panel["type"], panel["id"]
        if kind == "row":
            continue
        custom = panel["fieldConfig"]["defaults"]["custom"]
        yield f"export const {name}_o{number}: Given<{OPTIONS[kind]}> = {json.dumps(panel['options'])};"
        yield f"export const {name}_c{number}: Given<{CUSTOM[kind]}> = {json.dumps(custom)};"
        for n, one in enumerate(panel.get("transformations", [])):
            yield f"export const {name}_t{number}_{n}: DataTransformerConfig = {json.dumps(one)};"


def compiled(compiler: Path, directory: Path, lines: list[str]) -> str:
    """What the compiler complains of."""
    file = directory / "check.ts"
    file.write_text(HEAD + "\n".join(lines) + "\n")
    (directory / "node_modules").symlink_to(CACHE / "node_modules")
    words = "--noEmit --strict --skipLibCheck --target es2022 --module es2022 --moduleResolution node"
    argv = [str(compiler), *words.split(), file.name]
    return subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False).stdout


def test_the_dashboards_are_of_grafanas_types(compiler: Path, tmp_path: Path) -> None:
    """All three, with every panel."""
    pages = [json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))]
    assert pages
    assert compiled(compiler, tmp_path, [line for page in pages for line in _checks(page)]) == ""


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("reduceOption", {}, "may only specify known properties"),
        ("colorMode", "loud", '"loud"\' is not assignable to type'),
        ("reduceOptions", {"calcs": "last"}, "'string' is not assignable to type '(string"),
    ],
)
def test_a_mistake_would_be_found(compiler: Path, tmp_path: Path, field: str, value: Any, said: str) -> None:
    """Or the check above says nothing."""
    page = json.loads((DIRECTORY / "ringfence-fleet.json").read_text())
    panel = next(one for one in page["panels"] if one["type"] == "stat")
    panel["options"][field] = value
    assert said in compiled(compiler, tmp_path, list(_checks(page)))
