# SPDX-License-Identifier: Apache-2.0
"""How urgent an alert is for people, by what may have happened: the words that routes use.

The shipped Prometheus rules decide in the same way. docs/reference/alerts-out.md has the table.
"""

from __future__ import annotations

import re

from ringfence.export.pages import page_of
from ringfence.export.sinks.native import Record, part
from ringfence.severity import number_of

__all__ = ["alert_name", "description", "runbook_url", "urgency"]

_RUNBOOKS = "https://github.com/ringfence/ringfence/blob/main/docs/runbooks"
_HIGH, _MEDIUM = 4, 3


def urgency(record: Record) -> str:
    """Returns critical, warning or info. Critical: it may have taken effect."""
    number, effect = number_of(record.get("severity")), page_of(record).effect
    if number >= _HIGH:
        return "critical" if effect else "warning"
    return "warning" if number == _MEDIUM and effect else "info"


def alert_name(record: Record) -> str:
    """Returns the name of the rule as alert names are written: core-pattern -> RingfenceCorePattern."""
    words = re.split(r"[^A-Za-z0-9]+", str(part(record, "rule").get("id") or "unknown"))
    return "Ringfence" + "".join(word[:1].upper() + word[1:] for word in words)


def runbook_url(record: Record) -> str:
    """Returns the address of the runbook."""
    return f"{_RUNBOOKS}/{page_of(record).name}.md"


def description(record: Record) -> str:
    """Returns how it ended, and in which container, in sentences."""
    container = part(record, "container")
    names = [str(container[key]) for key in ("namespace", "pod", "name") if container.get(key)]
    where = f" Container {'/'.join(names)}." if names else ""
    return f"{page_of(record).sentence}{where}"
