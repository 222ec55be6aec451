# SPDX-License-Identifier: Apache-2.0
"""Receivers for people: messages of Slack (incoming webhooks) and Microsoft Teams (Workflows).

Text of a container is only in fields without markup: it cannot mention people or show links.
Limits are those of the vendors' documentation; longer text is cut.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ringfence.export.sinks.http import Http
from ringfence.export.sinks.native import Record, headline, part
from ringfence.export.sinks.urgency import description, runbook_url, urgency

__all__ = ["Slack", "Teams"]

_COLOURS = {"critical": "attention", "warning": "warning", "info": "default"}


class Slack:
    """One message per request: a line for notifications, and a block for each alert.

    Slack: a message has at most 50 blocks, a section's text 3,000 characters, a header 150.
    """

    batch_records, batch_bytes = 20, 1 << 18
    _HEADER, _SECTION, _TEXT = 150, 3000, 3000

    def __init__(self, name: str, http: Http) -> None:
        self.name, self._http = name, http

    def close(self) -> None:
        """Does nothing: a connection lasts for one request."""

    def send(self, records: Sequence[Record]) -> None:
        """One request."""
        title = _title(records)
        header = {"type": "header", "text": _plain(_cut(title, self._HEADER))}
        blocks = [header, *(self._section(record) for record in records)]
        self._http.post(_json({"text": _cut(_escaped(title), self._TEXT), "blocks": blocks}))

    def _section(self, record: Record) -> dict[str, Any]:
        return {"type": "section", "text": _plain(_cut("\n".join(_lines(record)), self._SECTION))}


class Teams:
    """One message with an Adaptive Card per request. A message has at most 28 KB."""

    batch_records, batch_bytes = 8, 1 << 17
    _LINE = 480  # bytes of a line in JSON: eight alerts of five lines, and what is around them

    def __init__(self, name: str, http: Http) -> None:
        self.name, self._http = name, http

    def close(self) -> None:
        """Does nothing: a connection lasts for one request."""

    def send(self, records: Sequence[Record]) -> None:
        """One request."""
        body = [_rich(_cut_json(_title(records), self._LINE), bolder=True)]
        for record in records:
            colour = _COLOURS[urgency(record)]
            for number, line in enumerate(_lines(record)):
                first = number == 0
                text = _cut_json(line, self._LINE)
                body.append(_rich(text, colour=colour if first else "default", separator=first))
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": body,
        }
        attachment = {
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": None,
            "content": card,
        }
        self._http.post(_json({"type": "message", "attachments": [attachment]}))


def _title(records: Sequence[Record]) -> str:
    """Returns one line for all alerts of a message."""
    if len(records) == 1:
        return f"{urgency(records[0]).upper()}: {headline(records[0])}"
    worst = min(map(urgency, records), key=list(_COLOURS).index)
    return f"{worst.upper()}: {len(records)} alerts of Ringfence"


def _lines(record: Record) -> list[str]:
    """Returns what a person needs first: what, how it ended, where, by which command, what to do."""
    command = " ".join(map(str, part(record, "process").get("args") or []))
    rule, node = part(record, "rule").get("id"), record.get("node")
    lines = [
        f"{urgency(record).upper()}: {headline(record)}",
        description(record),
        f"Node {node}, rule {rule}, alert {record.get('id')}, {record.get('time')}",
        f"Command: {command}" if command else "",
        f"Runbook: {runbook_url(record)}",
    ]
    return [line for line in lines if line]


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text, "emoji": False}


def _rich(
    text: str, *, bolder: bool = False, colour: str = "default", separator: bool = False
) -> dict[str, Any]:
    """Returns text without Markdown: only TextBlock and FactSet interpret it."""
    weight = "bolder" if bolder else "default"
    run = {"type": "TextRun", "text": text, "weight": weight, "color": colour}
    return {"type": "RichTextBlock", "inlines": [run], "separator": separator}


def _escaped(text: str) -> str:
    """Escapes the control characters of Slack's mrkdwn: <!channel> becomes text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def _cut_json(text: str, most: int) -> str:
    """Cuts text to so many bytes of JSON: a character can need twelve."""
    text = _cut(text, most)
    while len(json.dumps(text)) > most:
        text = _cut(text, len(text) - max(1, (len(json.dumps(text)) - most) // 12))
    return text


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()
