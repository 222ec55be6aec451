# SPDX-License-Identifier: Apache-2.0
"""Parses receivers of alerts from configuration values: an address, and settings of that receiver.

In the file a receiver is a URL, or `{url: URL, headers: PATH, ca: PATH, certificate: PATH, key: PATH}`; in
a flag or a variable it is `URL headers=PATH ca=PATH ...`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from ringfence.config import values

__all__ = [
    "Receiver",
    "chat_receivers",
    "hosts_of_shared_headers",
    "http_receivers",
    "labels",
    "syslog_receivers",
    "url",
]

Choice = Path | None | Literal["shared"]
_OPTIONS = ("headers", "ca", "certificate", "key")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,31}")  # valid in Prometheus and in syslog structured data
_LABELS_MAX, _LABEL_VALUE_MAX = 16, 128
#: labels that ringfence.export.sinks.web.Alertmanager sets
_TAKEN = frozenset(
    ("alertname", "id", "attack", "rule", "severity", "outcome", "mechanism", "namespace", "pod", "container",
     "image", "node", "source", "rule_severity")
)  # fmt: skip


class Receiver(NamedTuple):
    """A receiver of alerts. `shared`: use `alerts.headers`, `alerts.ca`, `alerts.certificate`; None: off."""

    url: str
    headers: Choice = "shared"
    ca: Choice = "shared"
    certificate: Choice = "shared"
    key: Path | None = None  # None: in the certificate's file


def url(value: Any) -> str:
    """An http or https URL without a user name: secrets belong in a file of headers."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("expected a URL")
    parts, port = _split(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{value[:80]!r} is not a URL of the form http://HOST... or https://HOST...")
    if parts.username is not None or parts.fragment:
        raise ValueError(
            "the URL must not contain a user name, password or fragment: use `alerts.headers` for secrets"
        )
    return value


def syslog_url(value: Any) -> str:
    """The address of a syslog receiver."""
    parts, port = _split(value if isinstance(value, str) else "")
    network = parts.scheme in ("udp", "tcp", "tls") and parts.hostname and not parts.path and port != 0
    if not network and not (parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/")):
        raise ValueError(
            f"{str(value)[:80]!r} is not udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH"
        )
    return str(value)


def _split(value: str) -> tuple[Any, int | None]:
    try:
        parts = urlsplit(value)
        return parts, parts.port
    except ValueError as error:
        raise ValueError(f"{value[:80]!r} is not a URL: {error}") from error


def http_receivers(value: Any) -> tuple[Receiver, ...]:
    """A list of HTTP receivers, each address once."""
    return _receivers(value, url, _OPTIONS)


def chat_receivers(value: Any) -> tuple[Receiver, ...]:
    """A list of webhooks of chat services. They never get the shared headers, which may hold a token."""
    return tuple(
        one._replace(headers=None) if one.headers == "shared" else one for one in http_receivers(value)
    )


def syslog_receivers(value: Any) -> tuple[Receiver, ...]:
    """A list of syslog receivers (no HTTP headers), each address once."""
    return _receivers(value, syslog_url, _OPTIONS[1:])


def _receivers(value: Any, parse: Callable[[Any], str], options: Sequence[str]) -> tuple[Receiver, ...]:
    items = value if isinstance(value, list) else [value]
    found = {one.url: one for one in (_receiver(item, parse, options) for item in items)}
    if len(found) < len({*map(repr, items)}):
        raise ValueError("the same address is given twice, with different options")
    return tuple(found.values())


def _receiver(item: Any, parse: Callable[[Any], str], options: Sequence[str]) -> Receiver:
    given = _given(item)
    if "url" not in given:
        raise ValueError(
            f"a receiver is a URL, or has `url` and {', '.join(f'`{name}`' for name in options)}"
        )
    for name in given:
        if name not in ("url", *options):
            raise ValueError(
                f"{name[:80]!r} is not an option of a receiver{values.suggest(name, ('url', *options))}"
            )
    chosen = {name: values.off_or(values.absolute_path)(given[name]) for name in options if name in given}
    if chosen.get("key") and not chosen.get("certificate"):
        raise ValueError("`key` requires `certificate`")
    return Receiver(parse(given["url"]), **chosen)


def _given(item: Any) -> Mapping[str, Any]:
    if isinstance(item, Mapping):
        return item
    if not isinstance(item, str):
        raise ValueError("expected a list of receivers")
    first, *more = item.split(" ")
    pairs = [word.partition("=") for word in more]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"{item[:80]!r} is neither URL nor URL OPTION=PATH ...")
    return {"url": first} | {name: path for name, _, path in pairs}


def hosts_of_shared_headers(receivers: Sequence[Receiver]) -> list[str]:
    """Returns the hosts that `alerts.headers` would be sent to."""
    return sorted({urlsplit(one.url).netloc for one in receivers if one.headers == "shared"})


def labels(value: Any) -> dict[str, str]:
    """NAME -> value, added to every alert. In a list: NAME=VALUE."""
    found: dict[str, str] = {}
    for name, text in values.pairs(value, "NAME=VALUE"):
        if not _LABEL.fullmatch(name) or name.startswith("__") or name in _TAKEN:
            raise ValueError(f"{name[:80]!r} is not a valid label name, or alerts already have this label")
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _LABEL_VALUE_MAX:
            raise ValueError(f"{name}: a label value must be one line of 1 to {_LABEL_VALUE_MAX} characters")
        found[name] = text
    if len(found) > _LABELS_MAX:
        raise ValueError(f"at most {_LABELS_MAX} labels")
    return found
