# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of a custom probe's YAML, for editors and CI systems.

The reader accepts no more than the schema, and checks more (fields of metrics, order of buckets).
"""

from __future__ import annotations

from typing import Any

from ringfence.probes import read, read_metrics
from ringfence.probes.definition import DEFAULT_RATE, KINDS, LICENSES

__all__ = ["schema"]

Schema = dict[str, Any]


def schema() -> Schema:
    """Returns the schema of one file."""
    metadata = {"name": _matching(read.NAME.pattern), "description": _text()}
    top = {
        "apiVersion": {"const": read.API_VERSION},
        "kind": {"const": read.KIND},
        "metadata": _object(metadata, *metadata),
        "spec": _object(_spec(), *read.SPEC_REQUIRED),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"https://{read.API_VERSION}/probe.schema.json",
        "title": "Ringfence custom probe",
        "description": "The events of a bcc program and their use. See docs/reference/custom-probes.md.",
        **_object(top, *top),
    }


def _object(properties: Schema, *required: str) -> Schema:
    found: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": list(required)} if required else {})


def _matching(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^({pattern})$"}


def _text() -> Schema:
    return {"type": "string", "minLength": 1}


def _integer(low: int, high: int, default: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high, "default": default}


def _spec() -> Schema:
    name = _matching(read.C_NAME.pattern)
    kind = {"enum": list(KINDS), "default": "number"}
    field = _object({"type": kind, "unit": _text(), "description": _text()})
    return {
        "license": {"enum": list(LICENSES)},
        "event": {**name, "description": "the struct that the program sends"},
        "container": {
            "description": "how an event identifies its container",
            "oneOf": [
                {"const": "task"},
                _object({"cgroup": name}, "cgroup"),
                _object({"pid": name, "start": name}, "pid", "start"),
            ],
        },
        "host": {"enum": ["drop", "keep"], "default": "drop"},
        "fields": {
            "type": "object", "minProperties": 1, "maxProperties": read.MAX_FIELDS,
            "propertyNames": name, "additionalProperties": field,
        },
        "parameters": {
            "type": "object", "minProperties": 1, "maxProperties": read.MAX_PARAMETERS,
            "propertyNames": name, "additionalProperties": {"type": "integer"},
        },
        "sample": _integer(1, read.MAX_SAMPLE, 1),
        "rate": _integer(0, read.MAX_RATE, DEFAULT_RATE),
        "ring": {"enum": list(read.RINGS), "default": "512KiB"},
        "export": {"enum": ["activity", "lines"], "default": "activity"},
        "metrics": {
            "type": "array", "minItems": 1, "maxItems": read_metrics.MAX_METRICS, "items": _metric(),
        },
    }  # fmt: skip


def _metric() -> Schema:
    name = _matching(read.C_NAME.pattern)
    several = {"type": "array", "minItems": 1, "maxItems": read_metrics.MAX_LABELS, "items": name}
    metric = _object(
        {
            "name": _matching(read_metrics.METRIC_NAME.pattern),
            "type": {"enum": ["counter", "histogram"]},
            "help": _text(),
            "value": name,
            "scale": {"type": "number", "default": 1},
            "buckets": {
                "type": "array", "minItems": 1, "maxItems": read_metrics.MAX_BUCKETS,
                "items": {"type": "number"},
            },
            "labels": {"anyOf": [name, several]},
            "container": {"type": "boolean", "default": True},
            "max_series": _integer(1, read_metrics.MAX_SERIES, read_metrics.DEFAULT_SERIES),
        },
        *("name", "type", "help"),
    )  # fmt: skip
    histogram = {
        "if": {"properties": {"type": {"const": "histogram"}}},
        "then": {"required": ["value", "buckets"]},
        "else": {"not": {"required": ["buckets"]}},
    }
    return {**metric, **histogram}
