# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tools.dashboards`: Grafana dashboards, written down as what they ask; a test compares the files.

Rates use $__rate_interval, sums over the shown time $__range. The variables `namespace` and `container` choose.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["DASHBOARDS", "DIRECTORY", "Dashboard", "Panel", "render"]

DIRECTORY = Path(__file__).resolve().parents[1] / "charts/ringfence/dashboards"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_J = 'job="ringfence"'
_C = 'job="ringfence", container=~"$container"'


class Panel(NamedTuple):
    """One picture. `queries` are (expression, legend)."""

    title: str
    kind: str  # stat, timeseries, table
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    text: str = ""
    width: int = 8  # of 24


class Dashboard(NamedTuple):
    """A page: rows of panels. `variables` are (name, metric, label)."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[tuple[str, str, str], ...] = ()


def _rate(metric: str, labels: str = _J, window: str = "$__rate_interval") -> str:
    return f"rate({metric}{{{labels}}}[{window}])"


def _activity(by: str, classes: str) -> str:
    chosen = f'{_C}, class=~"{classes}"'
    return f"sum by ({by}) ({_rate('ringfence_container_activity_total', chosen)})"


_STOPPED, _SEEN = 'outcome=~"denied|killed"', 'outcome=~"seen|would-deny|would-kill|kill-failed"'
_N = 'job="ringfence", namespace=~"$namespace"'
FLEET = Dashboard(
    "ringfence-fleet", "Ringfence: fleet",
    (
        ("Now", (
            Panel("Agents that answer", "stat", ((f"sum(up{{{_J}}})", ""),), width=4),
            Panel("Nodes that stop something", "stat",
                  ((f'count(sum by (instance) (ringfence_rules{{{_J}, action=~"deny|kill"}}) > 0) or vector(0)', ""),),
                  text="Nodes with at least one rule that denies or kills.", width=4),
            Panel("Containers", "stat", ((f'sum(ringfence_containers{{{_J}, state="running"}})', ""),), width=4),
            Panel("Attempts stopped", "stat",
                  ((f"sum(increase(ringfence_alerts_total{{{_J}, {_STOPPED}}}[$__range]))", ""),), width=4),
            Panel("Attempts not stopped", "stat",
                  ((f"sum(increase(ringfence_alerts_total{{{_J}, {_SEEN}}}[$__range]))", ""),),
                  text="Seen only: mode audit, rules that alert, or nothing on the node that could stop it.", width=4),
            Panel("Canary, longest silence", "stat", ((f"max(ringfence_canary_seconds{{{_J}}})", ""),), "s", width=4),
        )),
        ("Attempts", (
            Panel("By ATT&CK technique", "timeseries",
                  ((f"sum by (technique) ({_rate('ringfence_attempts_total', _N)})", "{{technique}}"),), "ops"),
            Panel("By node", "timeseries",
                  ((f"sum by (instance) ({_rate('ringfence_alerts_total')})", "{{instance}}"),), "ops"),
            Panel("By namespace", "timeseries",
                  ((f"sum by (namespace) ({_rate('ringfence_attempts_total', _N)})", "{{namespace}}"),), "ops"),
            Panel("What became of them", "timeseries",
                  ((f"sum by (outcome) ({_rate('ringfence_alerts_total')})", "{{outcome}}"),), "ops"),
            Panel("Rules, most often first", "table",
                  ((f"topk(20, sum by (rule, severity, outcome) (increase(ringfence_alerts_total{{{_J}}}[$__range])) > 0)",
                    ""),), width=16),
        )),
        ("Enforcement", (
            Panel("Rules by what they do, and how", "timeseries",
                  ((f"sum by (action, mechanism) (ringfence_rules{{{_J}}})", "{{action}} by {{mechanism}}"),)),
            Panel("Mode of each node", "table", ((f"max by (instance, mode) (ringfence_mode{{{_J}}}) == 1", ""),)),
            Panel("Policies of each node", "table",
                  ((f"max by (instance) (ringfence_policies{{{_J}}})", ""),
                   (f"min by (instance) (ringfence_policy_up_to_date{{{_J}}})", ""))),
        )),
        ("Blind spots", (
            Panel("Hooks that are not attached", "timeseries",
                  ((f'sum by (instance) (ringfence_hooks{{{_J}, state="skipped"}})', "{{instance}}"),)),
            Panel("Records lost", "timeseries",
                  ((f"sum by (reason) ({_rate('ringfence_events_dropped_total')})", "{{reason}}"),), "ops"),
            Panel("Records of nobody", "timeseries",
                  ((f"sum by (instance) ({_rate('ringfence_events_unattributed_total')}) or 0 * sum by (instance) (up{{{_J}}})",
                    "{{instance}}"),), "ops"),
        )),
    ),
    (("namespace", "ringfence_attempts_total", "namespace"),),
)  # fmt: skip

_STALLS = f'{_C}, kind="some"'
_CALLS = "namespace|mount|trace|kernel|credential|file|memory|socket|keyring|process"
CONTAINER = Dashboard(
    "ringfence-container", "Ringfence: container",
    (
        ("Who it is", (
            Panel("Name, image, pod", "table",
                  ((f"max by (container, name, image, runtime, namespace, pod) (ringfence_container_info{{{_C}}})", ""),),
                  width=16),
            Panel("Armed tasks", "timeseries",
                  ((f"ringfence_container_armed_tasks{{{_C}}}", "{{container}}"),)),
        )),
        ("What it does", (
            Panel("Processes and files", "timeseries",
                  ((_activity("class", "fork|exec|exit|open"), "{{class}}"),), "ops"),
            Panel("System calls by class", "timeseries", ((_activity("class", _CALLS), "{{class}}"),), "ops"),
            Panel("Network", "timeseries", ((_activity("class", "connect|bind|sendmsg"), "{{class}}"),), "ops"),
        )),
        ("What was held against it", (
            Panel("Alerts, kills, denials", "timeseries",
                  ((_activity("container, class", "alert|kill|deny"), "{{container}} {{class}}"),), "ops", width=24),
        )),
        ("What it waits for", (
            Panel("Pressure", "timeseries",
                  ((f"sum by (container, resource) ({_rate('ringfence_container_pressure_seconds_total', _STALLS)})",
                    "{{container}} {{resource}}"),), "percentunit", width=12,
                  text="Part of the time in which some task waited for CPU, memory or I/O (PSI)."),
            Panel("Throttled by its CPU limit", "timeseries",
                  ((f"sum by (container) ({_rate('ringfence_container_throttled_seconds_total', _C)})", "{{container}}"),),
                  "percentunit", width=12),
        )),
    ),
    (("container", "ringfence_container_info", "container"),),
)  # fmt: skip

_LATENCY = f"sum by (le) ({_rate('ringfence_alert_latency_seconds_bucket')})"
HEALTH = Dashboard(
    "ringfence-agents", "Ringfence: agents",
    (
        ("Events", (
            Panel("Received", "timeseries",
                  ((f"sum by (instance) ({_rate('ringfence_events_total')})", "{{instance}}"),), "ops"),
            Panel("Lost, by reason", "timeseries",
                  ((f"sum by (reason) ({_rate('ringfence_events_dropped_total')})", "{{reason}}"),), "ops"),
            Panel("Emitted and not received yet", "timeseries",
                  ((f"sum by (instance) (ringfence_events_emitted_total{{{_J}}}) - sum by (instance) "
                    f"(ringfence_events_total{{{_J}}})", "{{instance}}"),)),
            Panel("Call to alert", "timeseries",
                  tuple((f"histogram_quantile({q}, {_LATENCY})", f"p{int(q * 100)}") for q in (0.5, 0.99)), "s"),
            Panel("Waiting in the rings", "timeseries",
                  ((f"ringfence_ring_pending_bytes{{{_J}}} / on (instance, ring) ringfence_ring_size_bytes{{{_J}}}",
                    "{{instance}} {{ring}}"),), "percentunit"),
            Panel("Lines written and lost", "timeseries",
                  ((f"sum by (instance) ({_rate('ringfence_output_lines_total')})", "{{instance}} written"),
                   (f"sum by (reason) ({_rate('ringfence_output_lines_dropped_total')})", "lost: {{reason}}")), "ops"),
        )),
        ("What it costs", (
            Panel("Memory", "timeseries", ((f"process_resident_memory_bytes{{{_J}}}", "{{instance}}"),), "bytes"),
            Panel("CPU", "timeseries", ((_rate("process_cpu_seconds_total"), "{{instance}}"),), "percentunit"),
            Panel("Time in BPF programs", "timeseries",
                  ((f"sum by (program) ({_rate('ringfence_program_run_seconds_total')})", "{{program}}"),),
                  "percentunit", text="Counted only with `metrics.program_stats` or kernel.bpf_stats_enabled."),
        )),
        ("State", (
            Panel("Ready", "timeseries", ((f"ringfence_ready{{{_J}}}", "{{instance}}"),)),
            Panel("Start", "timeseries", ((f"ringfence_startup_seconds{{{_J}}}", "{{instance}}"),), "s"),
            Panel("Tables of the kernel", "timeseries",
                  ((f"max by (instance, map) (ringfence_map_entries{{{_J}}} / ringfence_map_max_entries{{{_J}}})",
                    "{{instance}} {{map}}"),), "percentunit"),
            Panel("Canary: seconds of silence", "timeseries",
                  ((f"ringfence_canary_seconds{{{_J}}}", "{{instance}}"),), "s"),
            Panel("Bugs met", "timeseries",
                  ((f"sum by (instance) ({_rate('ringfence_handler_errors_total')})", "{{instance}}"),), "ops"),
            Panel("Versions", "table", ((f"count by (version) (ringfence_build_info{{{_J}}})", ""),)),
        )),
    ),
)  # fmt: skip
DASHBOARDS = (FLEET, CONTAINER, HEALTH)


def render(dashboard: Dashboard) -> str:
    """The JSON that Grafana (schema 39, Grafana 11) takes."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in dashboard.rows:
        panels.append({"type": "row", "title": title, "id": len(panels) + 1, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}})  # fmt: skip
        top, left = top + 1, 0
        height = 4 if all(panel.kind == "stat" for panel in row) else 8
        for panel in row:
            if left + panel.width > 24:
                top, left = top + height, 0
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            panels.append(_panel(panel, len(panels) + 1, place))
            left += panel.width
        top += height
    page = {
        "uid": dashboard.uid, "title": dashboard.title, "tags": ["ringfence"], "schemaVersion": 39, "version": 1,
        "editable": True, "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "panels": panels,
        "templating": {"list": [_datasource(), *(_variable(*one) for one in dashboard.variables)]},
    }  # fmt: skip
    return json.dumps(page, indent=1) + "\n"


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    return {
        "id": number, "type": panel.kind, "title": panel.title, "description": panel.text, "gridPos": place,
        "datasource": _SOURCE, "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []}, "options": {},
        "targets": [
            {"refId": chr(65 + n), "datasource": _SOURCE, "expr": expression, "legendFormat": legend,
             "instant": table, "range": not table, "format": "table" if table else "time_series"}
            for n, (expression, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(name: str, metric: str, label: str) -> dict[str, Any]:
    return {
        "name": name, "type": "query", "datasource": _SOURCE, "refresh": 2, "includeAll": True, "multi": True,
        "allValue": ".*", "current": {"text": "All", "value": "$__all"},
        "query": {"query": f"label_values({metric}, {label})", "refId": name},
    }  # fmt: skip


def main() -> int:
    """Write the files anew."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        (DIRECTORY / f"{dashboard.uid}.json").write_text(render(dashboard))
    return 0


if __name__ == "__main__":
    sys.exit(main())
