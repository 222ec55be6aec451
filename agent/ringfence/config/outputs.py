# SPDX-License-Identifier: Apache-2.0
"""Configuration keys for output (alerts, status page) and for the sources of pod names."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ringfence.config import values
from ringfence.config.accepted import acceptances
from ringfence.config.receivers import chat_receivers, http_receivers, labels, syslog_receivers, url
from ringfence.config.values import Key
from ringfence.severity import SEVERITIES

__all__ = ["IDENTITY_KEYS", "OUTPUT_KEYS", "PAGE_DEFAULT"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PAGE_DEFAULT = values.Listen("127.0.0.1", 9912)
#: Kubernetes' "Object Names and IDs": a DNS subdomain; a qualified name may be prefixed by one and a slash
_SUBDOMAIN = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)*"
_NODE = re.compile(_SUBDOMAIN)
_TAINT = re.compile(rf"(?:{_SUBDOMAIN}/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")


def expressions(value: Any) -> tuple[re.Pattern[str], ...]:
    """Regular expressions. One that matches the empty text is refused: it would redact everything."""
    found = []
    for word in values.words(value):
        try:
            expression = re.compile(word)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{word[:80]!r} is not a regular expression: {error}") from error
        if expression.search(""):
            raise ValueError(f"{word[:80]!r} matches the empty text, so it would redact everything")
        found.append(expression)
    return tuple(found)


def _node(value: Any) -> str:
    """A node's name in its cluster; empty: the host's name."""
    if value != "" and not (isinstance(value, str) and len(value) <= 253 and _NODE.fullmatch(value)):
        raise ValueError(f"{str(value)[:80]!r} is not a node name (lower-case letters, digits, '-' and '.')")
    return str(value)


def _taint(value: Any) -> str:
    """A taint's key; empty: no taint."""
    if value != "" and not (isinstance(value, str) and len(value) <= 317 and _TAINT.fullmatch(value)):
        raise ValueError(f"{str(value)[:80]!r} is not a taint key, such as 'ringfence.dev/agent-not-ready'")
    return str(value)


def _api_server(value: Any) -> str:
    """A URL; empty: from the pod's environment. http only on the loopback, as requests carry the token."""
    found = urlsplit(url(value)) if value else None
    if found and found.scheme == "http" and not _is_loopback(found.hostname or ""):
        raise ValueError(f"{value[:80]!r} would send the token unencrypted: use https")
    return str(value) if value else ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _cri_socket(value: Any) -> Path | str | None:
    return "auto" if value == "auto" else values.off_or(values.absolute_path)(value)


def _page(value: Any) -> values.Listen | None:
    return PAGE_DEFAULT if value == "on" else values.listen(value)


IDENTITY_KEYS: tuple[Key, ...] = (
    Key("cri.socket", "cri_socket", _cri_socket, "auto",
        "CRI socket of the container runtime, for pod names; auto: the first of the usual sockets that"
        " exists", "auto|off|PATH"),
    Key("kubernetes.watch", "kubernetes_watch", values.choice("auto", "on", "off"), "auto",
        "watch this node's pods at the API server for labels and owners; auto: if the agent runs in a pod",
        "auto|on|off"),
    Key("kubernetes.api", "kubernetes_api", _api_server, "",
        "URL of the API server (default: from KUBERNETES_SERVICE_HOST)", "URL"),
    Key("kubernetes.node", "kubernetes_node", _node, "",
        "node name in the cluster and in alerts (default: the host name)", "NAME"),
    Key("kubernetes.taint", "kubernetes_taint", _taint, "",
        "key of the taint to remove from the node once the agent is ready", "KEY"),
    Key("kubernetes.token", "kubernetes_token", values.absolute_path, _ACCOUNT / "token",
        "file of the service account token; reread when it changes", "PATH"),
    Key("kubernetes.ca", "kubernetes_ca", values.off_or(values.absolute_path), _ACCOUNT / "ca.crt",
        "CA bundle for the API server; off: the system's CA store", "off|PATH"),
)  # fmt: skip

OUTPUT_KEYS: tuple[Key, ...] = (
    Key("alerts.webhook", "alerts_webhook", http_receivers, (),
        "POST alerts to this URL as JSON; `URL headers=PATH ca=PATH certificate=PATH key=PATH` overrides"
        " the shared settings for one receiver", "URL", many=True),
    Key("alerts.alertmanager", "alerts_alertmanager", http_receivers, (),
        "send alerts to this Alertmanager (API v2; URL without /api/v2)", "URL", many=True),
    Key("alerts.slack", "alerts_slack", chat_receivers, (),
        "send alerts as messages to this incoming webhook of Slack", "URL", many=True),
    Key("alerts.teams", "alerts_teams", chat_receivers, (),
        "send alerts as messages to this webhook of Microsoft Teams (Workflows)", "URL", many=True),
    Key("alerts.syslog", "alerts_syslog", syslog_receivers, (),
        "send alerts by syslog (RFC 5424): udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT (RFC 5425),"
        " unix:///PATH", "ADDRESS", many=True),
    Key("alerts.otlp", "alerts_otlp", http_receivers, (),
        "send alerts to this OpenTelemetry collector as log records (OTLP over HTTP; URL without /v1/logs)",
        "URL", many=True),
    Key("alerts.file", "alerts_file", values.off_or(values.absolute_path), None,
        "write alerts to this file and rotate it", "off|PATH"),
    Key("alerts.file_size", "alerts_file_size", values.size, 64 << 20,
        "size at which `alerts.file` is rotated", "SIZE"),
    Key("alerts.file_keep", "alerts_file_keep", values.integer(0, 1000), 5,
        "number of rotated `alerts.file` copies to keep", "N"),
    Key("alerts.format", "alerts_format", values.choice("native", "ecs", "ocsf"), "native",
        "alert format for webhook, syslog and file: native, Elastic Common Schema or OCSF",
        "native|ecs|ocsf"),
    Key("alerts.severity", "alerts_severity", values.choice(*SEVERITIES), "info",
        "minimum severity of alerts sent to receivers", "LEVEL"),
    Key("alerts.headers", "alerts_headers", values.off_or(values.absolute_path), None,
        "file of HTTP headers (`Authorization: Bearer ...`) for all receivers, reread when it changes; only"
        " if they are on one host, otherwise set headers per receiver", "off|PATH"),
    Key("alerts.ca", "alerts_ca", values.off_or(values.absolute_path), None,
        "CA bundle for the receivers; off: the system's CA store", "off|PATH"),
    Key("alerts.certificate", "alerts_certificate", values.off_or(values.absolute_path), None,
        "client certificate and key (PEM) for receivers that require one", "off|PATH"),
    Key("alerts.labels", "alerts_labels", labels, {},
        "labels to add to every alert, such as cluster=prod", "NAME=VALUE", many=True),
    Key("alerts.timeout", "alerts_timeout", values.integer(1, 300), 10,
        "timeout of one request to a receiver, in seconds", "SECONDS"),
    Key("alerts.syslog_enterprise", "alerts_syslog_enterprise", values.integer(0, 2**32 - 1), 0,
        "private enterprise number of your organisation, for the structured data of syslog; 0: only the"
        " message has the alert", "N"),
    Key("alerts.queue_dir", "alerts_queue_dir", values.off_or(values.absolute_path), None,
        "directory that queues alerts for unavailable receivers; off: `queue` in state_dir, usually lost at"
        " reboot",
        "off|PATH"),
    Key("alerts.queue_size", "alerts_queue_size", values.size, 64 << 20,
        "maximum queue size on disk per receiver; when full, the oldest alerts are dropped and counted",
        "SIZE"),
    Key("alerts.queue_sync", "alerts_queue_sync", values.choice("always", "second", "never"), "second",
        "when the queue is synced to disk: after every alert, once per second, or never; unsynced alerts"
        " survive a crash of the agent but not a power failure",
        "always|second|never"),
    Key("alerts.identity_wait", "alerts_identity_wait", values.integer(0, 60_000), 2000,
        "maximum time an alert waits for its pod name before it is sent, in milliseconds", "MS"),
    Key("alerts.rate", "alerts_rate", values.integer(1, 1_000_000), 60,
        "maximum alerts per minute, container and rule; suppressed ones are counted in the next alert", "N"),
    Key("alerts.burst", "alerts_burst", values.integer(1, 1_000_000), 10,
        "burst size for `alerts.rate`: alerts of one container and rule that may be sent at once", "N"),
    Key("alerts.repeat", "alerts_repeat", values.integer(0, 86_400), 1,
        "suppress repetitions of an alert for this many seconds; 0: do not suppress", "SECONDS"),
    Key("redact.patterns", "redact_patterns", expressions, (),
        "regular expression; its groups, or else the whole match, are redacted in all output",
        "REGEX", many=True),
    Key("redact.defaults", "redact_defaults", values.boolean, True,
        "redact well-known forms of passwords, tokens and keys in all output", "yes|no"),
    Key("page.listen", "page_listen", _page, None,
        "address of the status page; on: 127.0.0.1:9912", "on|off|HOST:PORT"),
    Key("audit.interval", "audit_interval", values.integer(0, 86_400), 300,
        "interval of the configuration audit for the metrics, in seconds; 0: never",
        "SECONDS"),
    Key("audit.accept", "audit_accept", acceptances, (),
        "accept findings of a check for containers (NAMESPACE/POD/CONTAINER, with * and ?), with a reason",
        "CHECK NAMES REASON", many=True),
)  # fmt: skip
