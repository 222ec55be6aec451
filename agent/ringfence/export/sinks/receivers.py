# SPDX-License-Identifier: Apache-2.0
"""The kinds of alert receivers: one table, which decides what is opened.

The modules of the receivers are imported only if one is configured: they need TLS and HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ringfence.config import Config
from ringfence.config.receivers import Receiver as Configured

if TYPE_CHECKING:
    from ringfence.export.sinks.http import Http, HttpSettings
    from ringfence.export.sinks.sender import Receiver

__all__ = ["RECEIVERS", "Kind", "is_any_configured", "receivers_of"]


class Kind(NamedTuple):
    """One kind of receiver. `open` gets the receiver's name for metrics, its settings, and all settings."""

    configured: Callable[[Config], Sequence[Configured]]
    open: Callable[[str, Configured, Config], Receiver]


def _webhook(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.formats import FORMATS
    from ringfence.export.sinks.web import Webhook

    return Webhook(name, _http(one.url, one, config), FORMATS[config.alerts_format])


def _alertmanager(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.web import Alertmanager

    return Alertmanager(name, _http(one.url.rstrip("/") + "/api/v2/alerts", one, config))


def _slack(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.chat import Slack

    return Slack(name, _http(one.url, one, config))


def _teams(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.chat import Teams

    return Teams(name, _http(one.url, one, config))


def _syslog(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.formats import FORMATS
    from ringfence.export.sinks.local import Syslog

    render, enterprise = FORMATS[config.alerts_format], config.alerts_syslog_enterprise
    return Syslog(name, one.url, render, _settings(config, one), enterprise)


def _otlp(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.web import Otlp

    return Otlp(name, _http(one.url.rstrip("/") + "/v1/logs", one, config))


def _file(name: str, one: Configured, config: Config) -> Receiver:
    from ringfence.export.sinks.formats import FORMATS
    from ringfence.export.sinks.local import RotatedFile

    render = FORMATS[config.alerts_format]
    return RotatedFile(name, Path(one.url), render, config.alerts_file_size, config.alerts_file_keep)


#: name in the configuration (`alerts.NAME`) and in metrics -> kind
RECEIVERS: Mapping[str, Kind] = {
    "webhook": Kind(lambda config: config.alerts_webhook, _webhook),
    "alertmanager": Kind(lambda config: config.alerts_alertmanager, _alertmanager),
    "slack": Kind(lambda config: config.alerts_slack, _slack),
    "teams": Kind(lambda config: config.alerts_teams, _teams),
    "syslog": Kind(lambda config: config.alerts_syslog, _syslog),
    "otlp": Kind(lambda config: config.alerts_otlp, _otlp),
    "file": Kind(
        lambda config: (Configured(str(config.alerts_file)),) if config.alerts_file else (), _file
    ),
}  # fmt: skip


def is_any_configured(config: Config) -> bool:
    """Returns True if alerts are sent anywhere."""
    return any(kind.configured(config) for kind in RECEIVERS.values())


def receivers_of(config: Config) -> list[Receiver]:
    """Opens the configured receivers."""
    return [
        kind.open(_name(name, one.url), one, config)
        for name, kind in RECEIVERS.items()
        for one in kind.configured(config)
    ]


def _http(url: str, receiver: Configured, config: Config) -> Http:
    from ringfence.export.sinks.http import Http

    return Http(url, _settings(config, receiver))


def _settings(config: Config, receiver: Configured) -> HttpSettings:
    """Returns this receiver's own settings, completed by the shared ones."""
    from ringfence.export.sinks.http import HttpSettings

    return HttpSettings(
        timeout=float(config.alerts_timeout),
        headers=config.alerts_headers if receiver.headers == "shared" else receiver.headers,
        ca=config.alerts_ca if receiver.ca == "shared" else receiver.ca,
        certificate=config.alerts_certificate if receiver.certificate == "shared" else receiver.certificate,
        key=receiver.key,
    )


def _name(kind: str, target: str) -> str:
    """Returns a stable name for a receiver. The address may contain a secret, so it is hashed."""
    import hashlib

    return f"{kind}-{hashlib.sha256(target.encode()).hexdigest()[:8]}"
