# SPDX-License-Identifier: Apache-2.0
"""How urgent an alert is for people, by what may have happened: the words that routes use.

The shipped Prometheus rules decide in the same way. docs/alerts-out.md has the table.
"""

from __future__ import annotations

import re

from ringfence.export.sinks.native import Record, part
from ringfence.severity import number_of

__all__ = ["alert_name", "description", "runbook_url", "urgency"]

_RUNBOOKS = "https://github.com/ringfence/ringfence/blob/main/docs/runbooks"
_HIGH, _MEDIUM = 4, 3
#: the page and the sentence of each way in which an attempt can end
_PAGES = {
    "denied": ("escape-denied", "The call was denied before it took effect."),
    "killed": (
        "escape-denied",
        "The process was killed as it made the call; look for what the call may have left.",
    ),
    "would-deny": ("would-have-stopped", "The policy is in mode audit, so the call took place."),
    "would-kill": ("would-have-stopped", "The policy is in mode audit, so the call took place."),
    "kill-failed": (
        "escape-not-stopped",
        "The call may have taken effect, and the process could not be killed.",
    ),
}
_SEEN = ("escape-not-stopped", "The call may have taken effect: this rule only reports on that node.")
_FOUND = ("detector-finding", "A detector reported this; how the single calls ended is in their alerts.")
_CHANGED = ("host-changed", "This has taken effect: the host's kernel runs another program as root.")


def _page(record: Record) -> tuple[str, str]:
    rule = part(record, "rule")
    if rule.get("policy") == "detectors":
        return _CHANGED if rule.get("id") == "helper-changed" else _FOUND
    return _PAGES.get(str(record.get("outcome")), _SEEN)


def urgency(record: Record) -> str:
    """Returns critical, warning or info. Critical: it may have taken effect."""
    number, page = number_of(record.get("severity")), _page(record)
    took_effect = page in (_SEEN, _CHANGED) or record.get("outcome") == "kill-failed"
    if number >= _HIGH:
        return "critical" if took_effect else "warning"
    return "warning" if number == _MEDIUM and took_effect else "info"


def alert_name(record: Record) -> str:
    """Returns the name of the rule as alert names are written: core-pattern -> RingfenceCorePattern."""
    words = re.split(r"[^A-Za-z0-9]+", str(part(record, "rule").get("id") or "unknown"))
    return "Ringfence" + "".join(word[:1].upper() + word[1:] for word in words)


def runbook_url(record: Record) -> str:
    """Returns the address of the runbook."""
    return f"{_RUNBOOKS}/{_page(record)[0]}.md"


def description(record: Record) -> str:
    """Returns how it ended, and in which container, in sentences."""
    container = part(record, "container")
    names = [str(container[key]) for key in ("namespace", "pod", "name") if container.get(key)]
    where = f" Container {'/'.join(names)}." if names else ""
    return f"{_page(record)[1]}{where}"
