# SPDX-License-Identifier: Apache-2.0
"""The subscription of one client of the local socket. Requests are untrusted: everything is checked."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ringfence.abi import EventKind
from ringfence.containers.naming import is_called
from ringfence.errors import Error
from ringfence.severity import SEVERITIES, at_least

__all__ = ["ALL_PROBES", "Subscription"]

_MAX_WORDS = 64
ALL_PROBES = "probe.*"
_PROBE = re.compile(r"probe\.[a-z0-9-]{1,40}")


class Subscription(NamedTuple):
    """Filters of one client. A record must pass all of them; an empty filter passes everything."""

    containers: tuple[str, ...]
    events: frozenset[str]
    rules: frozenset[str]
    severity: str  # the minimum; records without a severity pass
    alerts_only: bool
    since: float  # seconds since the epoch
    kinds: frozenset[int]  # numbers of the observed events that must be offered
    probes: frozenset[str] = (
        frozenset()
    )  # custom probes whose events must be offered; ALL_PROBES: of every one

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Subscription:
        """Parses the request. Raises Error with the problem."""
        labels = {kind.label: int(kind) for kind in EventKind if kind}
        events = _words(request, "events")
        for label in events:
            if label not in labels and not _PROBE.fullmatch(label):
                raise Error(f"{label!r} is not an event", hint="`ringfence probe` lists the events")
        severity = request.get("severity", SEVERITIES[0])
        if severity not in SEVERITIES:
            raise Error(f"severity must be one of {', '.join(SEVERITIES)}")
        since = request.get("since", 0)
        if not isinstance(since, (int, float)):
            raise Error("since must be a number of seconds since the epoch")
        rules, activity = _words(request, "rules"), request.get("activity") is True
        alerts_only = request.get("alerts") is True or bool(rules) or severity != SEVERITIES[0]
        probes = [label for label in events if label not in labels] if events else [ALL_PROBES] * activity
        kinds = (
            [labels[label] for label in events if label in labels]
            if events
            else labels.values()
            if activity
            else []
        )
        return cls(
            containers=tuple(_words(request, "containers")),
            events=frozenset(events),
            rules=frozenset(rules),
            severity=severity,
            alerts_only=alerts_only,
            since=float(since),
            kinds=frozenset() if alerts_only else frozenset(kinds),
            probes=frozenset() if alerts_only else frozenset(probes),
        )

    def wants(self, record: Mapping[str, Any]) -> bool:
        """Returns True if this record passes every filter."""
        alert = record.get("kind") == "alert"
        if self.alerts_only and not alert:
            return False
        if self.events and record.get("event") not in self.events:
            return False
        if self.rules and (record.get("rule") or {}).get("id") not in self.rules:
            return False
        if not at_least(record.get("severity"), self.severity):
            return False
        return not self.containers or _suits(record.get("container") or {}, self.containers)

    def recent(self, record: Mapping[str, Any]) -> bool:
        """Returns True if a record of the history is recent enough."""
        if not self.since:
            return True
        try:
            return datetime.fromisoformat(str(record.get("time"))).timestamp() >= min(self.since, time.time())
        except ValueError:
            return True


def _suits(container: Mapping[str, Any], words: tuple[str, ...]) -> bool:
    parts = (str(container.get(part) or "") for part in ("id", "name", "namespace", "pod"))
    identity, name, namespace, pod = parts
    return any(is_called(word, identity, name, namespace, pod) for word in words)


def _words(request: Mapping[str, Any], name: str) -> list[str]:
    words = request.get(name, [])
    if (
        not isinstance(words, list)
        or len(words) > _MAX_WORDS
        or not all(isinstance(word, str) for word in words)
    ):
        raise Error(f"{name} must be a list of at most {_MAX_WORDS} words")
    return words
