# SPDX-License-Identifier: Apache-2.0
"""What every panel must have so that a page is readable with 500 nodes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.force import need_program
from tools.dashboards import DASHBOARDS, Dashboard, Panel, render

PANELS = [(page.title, panel) for page in DASHBOARDS for _, row in page.rows for panel in row]


@pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=lambda one: one.title if isinstance(one, Panel) else ""
)
def test_no_panel_has_a_line_for_each_node_or_container_of_a_fleet(page: str, panel: Panel) -> None:
    """Such a line is one of the 15 largest: at first all nodes and all containers are chosen."""
    for expression, legend in panel.queries:
        many = any(f"{{{{{label}}}}}" in legend for label in ("node", "container"))
        if panel.kind in ("timeseries", "state-timeline") and many:
            assert re.match(r"(topk|bottomk)\(15, ", expression), f"{page}: {panel.title}"


@pytest.mark.parametrize(
    ("page", "panel"), PANELS, ids=lambda one: one.title if isinstance(one, Panel) else ""
)
def test_every_panel_says_what_it_shows(page: str, panel: Panel) -> None:
    """In a sentence; a table's columns of values have titles, and units or words."""
    assert len(panel.text) > 10, f"{page}: {panel.title}"
    assert panel.text.endswith(".")
    if panel.kind == "table":
        shown = {title for _, title in panel.columns}
        assert shown <= {cell.title for cell in panel.cells}
    if panel.kind == "state-timeline":
        assert panel.words


@pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: str(page.uid))
def test_every_page_has_annotations_and_a_shared_crosshair(page: Dashboard) -> None:
    """Critical alerts, policy loads and restarts on every graph."""
    made = json.loads(render(page))
    assert [one["name"] for one in made["annotations"]["list"]] == [
        "Critical alerts", "Policy loads", "Restarts of agents",
    ]  # fmt: skip
    assert made["graphTooltip"] == 1


CASE = """\
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: ringfence_container_alerts_total{job="j", kind="rule", outcome="would-deny", rule="%s"}
        values: %s
    promql_expr_test:
      - expr: %s
        eval_time: 20m
        exp_samples: [{labels: '{}', value: %s}]
"""


@pytest.mark.parametrize(
    ("values", "counted"),
    [
        ("_x60 1x19", 1),  # born at 1 in the time shown
        ("_x50 3x10 stale", 3),  # born in it, and ended
        ("5x80", 0),  # before it
        ("5x60 9x20", 4),  # increase() extrapolates nothing here: both ends have samples
    ],
)
def test_alerts_that_began_at_one_are_counted(tmp_path: Path, values: str, counted: int) -> None:
    """increase() alone leaves out the first value of a series: most attacks would count 0."""
    [panel] = [panel for _, panel in PANELS if panel.title == "Would have been stopped"]
    [(expression, _)] = panel.queries
    for word, value in (("$job", "j"), ("$namespace", ".*"), ("$node", ".*"), ("$__range", "15m")):
        expression = expression.replace(word, value)
    (tmp_path / "case.yaml").write_text(
        CASE % ("r", values, f"round({json.dumps(expression)[1:-1]})", counted)
    )
    text = (tmp_path / "case.yaml").read_text().replace('\\"', '"')
    (tmp_path / "case.yaml").write_text(text)
    argv = [need_program("promtool"), "test", "rules", "case.yaml"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
