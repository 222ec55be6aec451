# SPDX-License-Identifier: Apache-2.0
"""Receivers by HTTP: a webhook, Alertmanager (API v2), an OpenTelemetry collector (logs)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ringfence import __version__
from ringfence.containers.enrich import safejson
from ringfence.containers.naming import shortened
from ringfence.export.jsonl import dumps
from ringfence.export.sinks.http import Http
from ringfence.export.sinks.native import headline, image_of, microseconds, part
from ringfence.export.sinks.sender import Record
from ringfence.export.sinks.urgency import alert_name, description, runbook_url, urgency
from ringfence.severity import number_of

__all__ = ["Alertmanager", "Otlp", "Webhook"]

_RESOLVE = 300  # seconds after which Alertmanager resolves an alert that is not sent again


class _Web:
    """The common part. `name` is the receiver's name in metrics."""

    batch_records, batch_bytes = 64, 1 << 18

    def __init__(self, name: str, http: Http) -> None:
        self.name, self._http = name, http

    def close(self) -> None:
        """Does nothing: a connection lasts for one request."""


class Webhook(_Web):
    """Posts `{"alerts": [...]}`, in the configured format."""

    def __init__(self, name: str, http: Http, render: Callable[[Record], Mapping[str, Any]]) -> None:
        super().__init__(name, http)
        self._render = render

    def send(self, records: Sequence[Record]) -> None:
        """One request."""
        self._http.post(_json({"alerts": [self._render(record) for record in records]}))


class Alertmanager(_Web):
    """Posts to /api/v2/alerts. The labels identify an alert: rule, outcome and container."""

    def __init__(self, name: str, http: Http, now: Callable[[], float] = time.time) -> None:
        super().__init__(name, http)
        self._now = now

    def send(self, records: Sequence[Record]) -> None:
        """One request."""
        self._http.post(_json([self._alert(record) for record in records]))

    def _alert(self, record: Record) -> dict[str, Any]:
        rule, container = part(record, "rule"), part(record, "container")
        labels = {
            "alertname": alert_name(record),
            "source": "ringfence-agent",
            "rule": rule.get("id") or "unknown",
            "severity": urgency(record),
            "rule_severity": record.get("severity"),
            "outcome": record.get("outcome"),
            "mechanism": record.get("mechanism"),
            "namespace": container.get("namespace"),
            "pod": container.get("pod"),
            # as the metrics have it, or the alerts of Prometheus would not be inhibited
            "container": container.get("name") or shortened(str(container.get("id") or "")),
            "image": container.get("image"),
            "node": record.get("node"),
            **part(record, "labels"),
        }
        # Relative to now: an alert that waited in the queue must not arrive already resolved.
        ends = datetime.fromtimestamp(self._now() + _RESOLVE, UTC)
        return {
            "labels": {key: str(value) for key, value in labels.items() if value},
            "annotations": {key: str(value) for key, value in _annotations(record).items() if value},
            "generatorURL": runbook_url(record),
            "startsAt": record.get("time"),
            "endsAt": ends.isoformat(timespec="milliseconds"),
        }


def _annotations(record: Record) -> dict[str, Any]:
    """What explains an alert of Alertmanager."""
    rule, container = part(record, "rule"), part(record, "container")
    process = part(record, "process")
    return {
        "summary": headline(record),
        "description": description(record),
        "runbook_url": runbook_url(record),
        "attack": ", ".join(rule.get("attack") or []),
        "policy": f"{rule.get('file')}:{rule.get('line')}" if rule.get("file") else "",
        "allow": record.get("allow"),
        "command": " ".join(process.get("args") or []),
        "ancestry": " < ".join(
            str(parent.get("exe") or parent.get("comm")) for parent in process.get("ancestry") or []
        ),
        "alert_id": record.get("id"),
        "container_id": container.get("id"),
        "owner": container.get("owner"),
        "suppressed": str(record["suppressed"]) if record.get("suppressed") else "",
    }


class Otlp(_Web):
    """POST to /v1/logs: OTLP/HTTP with JSON (opentelemetry-proto, logs/v1)."""

    #: opentelemetry-proto SeverityNumber: INFO, INFO4, WARN, ERROR, FATAL
    _SEVERITY = (9, 12, 13, 17, 21)
    #: the version of the semantic conventions whose names are used here
    _SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

    def send(self, records: Sequence[Record]) -> int:
        """Sends one request; returns the number of records that the collector refused.

        It does not say which, and such a request must not be sent again (OTLP, "Partial Success"): the
        accepted records would arrive twice.
        """
        by_node: dict[str, list[Record]] = {}
        for record in records:
            by_node.setdefault(str(record.get("node") or ""), []).append(record)
        answer = self._http.post(
            _json({"resourceLogs": [self._resource(node, group) for node, group in by_node.items()]})
        )
        return min(_rejected(answer.body), len(records))

    def _resource(self, node: str, records: Sequence[Record]) -> dict[str, Any]:
        scope = {"name": "ringfence", "version": __version__}
        labels = part(records[0], "labels")  # the agent's labels, the same for all records of a node
        attributes = {"service.name": "ringfence", "host.name": node, "k8s.node.name": node, **labels}
        attributes["k8s.cluster.name"] = attributes.pop("cluster", "")
        return {
            "resource": {"attributes": _attributes(attributes)},
            "schemaUrl": self._SCHEMA,
            "scopeLogs": [
                {
                    "scope": scope,
                    "schemaUrl": self._SCHEMA,
                    "logRecords": [self._log(record) for record in records],
                }
            ],
        }

    def _log(self, record: Record) -> dict[str, Any]:
        rule, container = part(record, "rule"), part(record, "container")
        process = part(record, "process")
        image = image_of(container)
        digest = f"{image.name}@{image.digest}" if image.digest else ""
        # names of the OpenTelemetry semantic conventions where they have one
        attributes = {
            "log.record.uid": record.get("id"),
            "container.id": container.get("id"),
            "container.name": container.get("name"),
            "container.image.name": image.name,
            "container.image.tags": [image.tag] if image.tag else [],
            "container.image.repo_digests": [digest] if digest else [],
            "container.runtime.name": container.get("runtime"),
            "k8s.namespace.name": container.get("namespace"),
            "k8s.pod.name": container.get("pod"),
            "k8s.pod.uid": container.get("pod_uid"),
            "k8s.container.name": container.get("name") if container.get("pod") else "",
            "process.pid": process.get("pid"),
            "process.executable.path": process.get("exe"),
            "process.command_args": process.get("args"),
            "ringfence.event": record.get("event"),
            "ringfence.rule.id": rule.get("id"),
            "ringfence.rule.attack": rule.get("attack"),
            "ringfence.rule.place": f"{rule.get('file')}:{rule.get('line')}" if rule.get("file") else "",
            "ringfence.outcome": record.get("outcome"),
            "ringfence.mechanism": record.get("mechanism"),
        }
        return {
            "timeUnixNano": str(microseconds(record) * 1000),
            "observedTimeUnixNano": str(time.time_ns()),
            "eventName": "ringfence.alert",
            "severityNumber": self._SEVERITY[number_of(record.get("severity")) - 1],
            "severityText": str(record.get("severity") or ""),
            "body": {"stringValue": dumps(record)},
            "attributes": _attributes(attributes),
        }


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": _any_value(value)}
        for key, value in values.items()
        if value not in (None, "", [])
    ]


def _any_value(value: Any) -> dict[str, Any]:
    """opentelemetry-proto AnyValue in JSON; 64-bit numbers are strings there."""
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _rejected(body: bytes) -> int:
    """Returns the number of refused log records. 64-bit numbers are strings, and may be numbers."""
    try:
        answer = safejson.parse(body or b"{}")
    except safejson.Unusable:
        return 0
    text = safejson.text(answer, "partialSuccess", "rejectedLogRecords")
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    return safejson.integer(answer, "partialSuccess", "rejectedLogRecords") or 0


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()
