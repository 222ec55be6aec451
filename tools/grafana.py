# SPDX-License-Identifier: Apache-2.0
"""Makes Grafana's JSON (schema 39, Grafana 11) of dashboards that are defined by their queries."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["Cell", "Dashboard", "Panel", "Variable", "render"]

_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
Json = dict[str, Any]


class Cell(NamedTuple):
    """A column of a table, by its title: unit, colours from values on, and words for values."""

    title: str
    unit: str = "none"
    steps: tuple[tuple[float | None, str], ...] = ()
    words: tuple[tuple[str, str, str], ...] = ()


class Panel(NamedTuple):
    """One picture. `queries` are (expression, legend)."""

    title: str
    kind: str  # stat, timeseries, state-timeline, table
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    text: str = ""  # the description: what it shows, and what to do with it
    width: int = 8  # of 24
    steps: tuple[
        tuple[float | None, str], ...
    ] = ()  # (from this value on, colour); the first is from nothing on
    columns: tuple[tuple[str, str], ...] = ()  # of a table: (field, title)
    hidden: tuple[str, ...] = ()  # hidden fields of a table
    cells: tuple[Cell, ...] = ()  # how fields of a table look, by their titles
    words: tuple[tuple[str, str, str], ...] = ()  # of a state: (value, word, colour)
    may_be_empty: bool = False  # nothing to show is good news
    links: tuple[tuple[str, str, str], ...] = ()  # (title, dashboard, its variables)


class Variable(NamedTuple):
    """A variable. A regex with the groups `text` and `value` separates what is shown from the value."""

    name: str
    query: str
    regex: str = ""
    listed: bool = False  # "All" means all listed values, not any value


class Dashboard(NamedTuple):
    """A page: rows of panels, and its variables beside the data source and the job."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: tuple[Variable, ...] = ()


def render(dashboard: Dashboard) -> str:
    """The file."""
    panels: list[Json] = []
    top = 0
    for title, row in dashboard.rows:
        panels.append({"type": "row", "title": title, "id": len(panels) + 1, "collapsed": False, "panels": [],
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
    job = Variable("job", "label_values(ringfence_build_info, job)")
    choices = [_datasource(), _choice(job, one=True), *map(_choice, dashboard.variables)]
    page = {
        "uid": dashboard.uid, "title": dashboard.title, "tags": ["ringfence"],
        "schemaVersion": 39, "version": 1, "editable": True, "refresh": "1m", "graphTooltip": 1,
        "annotations": {"list": [_annotation(*one) for one in _ANNOTATIONS]},
        "time": {"from": "now-1h", "to": "now"}, "links": [_others()], "panels": panels,
        "templating": {"list": choices},
    }  # fmt: skip
    return json.dumps(page, indent=1) + "\n"


def _panel(panel: Panel, number: int, place: dict[str, int]) -> Json:
    instant = panel.kind in ("stat", "table")
    shape = "table" if panel.kind == "table" else "time_series"
    found: Json = {
        "id": number, "type": panel.kind, "title": panel.title, "gridPos": place, "datasource": _SOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": list(map(_override, panel.cells))},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {"refId": chr(65 + n), "datasource": _SOURCE, "expr": expression, "legendFormat": legend,
             "instant": instant, "range": not instant, "format": shape}
            for n, (expression, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip
    if panel.text:
        found["description"] = panel.text
    if panel.kind == "table":
        found["transformations"] = list(_transformations(panel))
    return found


def _defaults(panel: Panel) -> Json:
    steps = panel.steps or ((None, "blue" if panel.kind == "stat" else "green"),)
    found: Json = {
        "unit": panel.unit,
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": colour} for value, colour in steps],
        },
        "custom": _CUSTOM[panel.kind],
    }
    if panel.unit == "none":
        found["decimals"] = 0
    if panel.unit == "percentunit":
        found["min"] = 0
    if panel.words:
        found["mappings"] = [_mapping(panel.words)]
    if panel.steps and panel.kind == "timeseries":
        found["custom"] = {**found["custom"], "thresholdsStyle": {"mode": "dashed"}}
    if panel.links:
        found["links"] = [
            {"title": title, "url": f"/d/{to}?{words}&${{job:queryparam}}&${{__url_time_range}}"}
            for title, to, words in panel.links
        ]
    return found


_OPTIONS: dict[str, Json] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "colorMode": "background",
        "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
    },
    "timeseries": {
        "legend": {
            "showLegend": True, "displayMode": "table", "placement": "bottom",
            "calcs": ["lastNotNull", "max"], "sortBy": "Max", "sortDesc": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "state-timeline": {
        "showValue": "never", "rowHeight": 0.8, "mergeValues": True, "alignValue": "left",
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    },
    "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False, "reducer": ["sum"]}},
}  # fmt: skip
_CUSTOM: dict[str, Json] = {
    "stat": {},
    "timeseries": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto"},
    "state-timeline": {"fillOpacity": 70, "lineWidth": 0},
    "table": {"align": "auto", "filterable": True},
}


#: (name, colour, expression): shown on every graph
_ANNOTATIONS = (
    ("Critical alerts", "red",
     'count by (alertname) (ALERTS{alertname=~"Ringfence.+", alertstate="firing", severity="critical"})'),
    ("Policy loads", "blue", 'count(changes(ringfence_policy_loaded_timestamp_seconds{job="$job"}[2m]) > 0)'),
    ("Restarts of agents", "orange", 'count(changes(process_start_time_seconds{job="$job"}[2m]) > 0)'),
)  # fmt: skip


def _annotation(name: str, colour: str, expression: str) -> Json:
    return {"name": name, "enable": True, "iconColor": colour, "datasource": _SOURCE, "expr": expression}


def _mapping(words: tuple[tuple[str, str, str], ...]) -> Json:
    options = {
        value: {"text": word, "color": colour, "index": index}
        for index, (value, word, colour) in enumerate(words)
    }
    return {"type": "value", "options": options}


def _override(cell: Cell) -> Json:
    """How a column of a table looks."""
    properties: list[Json] = [{"id": "unit", "value": cell.unit}]
    if cell.unit == "none":
        properties.append({"id": "decimals", "value": 0})
    if cell.words:
        properties.append({"id": "mappings", "value": [_mapping(cell.words)]})
    if cell.steps:
        steps = [{"value": value, "color": colour} for value, colour in cell.steps]
        properties.append({"id": "thresholds", "value": {"mode": "absolute", "steps": steps}})
    if cell.words or cell.steps:
        properties.append(
            {"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}
        )
    return {"matcher": {"id": "byName", "options": cell.title}, "properties": properties}


def _transformations(panel: Panel) -> list[Json]:
    """Merges several answers into one row per object; the time is not shown in a table of current values."""
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": dict.fromkeys(("Time", *panel.hidden), True),
            "renameByName": dict(panel.columns),
            "indexByName": {},
        },
    }
    merge = [{"id": "merge", "options": {}}] if len(panel.queries) > 1 else []
    names = dict(panel.columns)
    by = next((names[field] for field in ("Value", "Value #A") if field in names), "")
    sort = [{"id": "sortBy", "options": {"fields": {}, "sort": [{"field": by, "desc": True}]}}] if by else []
    return [*merge, organize, *sort]


def _datasource() -> Json:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _others() -> Json:
    return {
        "type": "dashboards", "tags": ["ringfence"], "title": "Ringfence", "asDropdown": True, "tooltip": "",
        "icon": "external link", "includeVars": True, "keepTime": True, "targetBlank": False, "url": "",
    }  # fmt: skip


def _choice(variable: Variable, *, one: bool = False) -> Json:
    now = ("ringfence", "ringfence") if one else ("All", "$__all")
    found = {
        "name": variable.name, "type": "query", "datasource": _SOURCE, "refresh": 2, "sort": 1,
        "includeAll": not one, "multi": not one, "regex": variable.regex,
        "current": {"text": now[0], "value": now[1]},
        "query": {"query": variable.query, "refId": variable.name},
    }  # fmt: skip
    # Without an allValue, All means what is listed, that is, what the variables before leave.
    return found if one or variable.listed else {**found, "allValue": ".*"}
