# SPDX-License-Identifier: Apache-2.0
"""Messages for Slack and Teams: their documented shapes and limits, and no markup by a container.

Slack: "Reference: blocks" and "Sending messages using incoming webhooks". Teams: "Create incoming
webhooks with Workflows" and "Format cards in Microsoft Teams" (Adaptive Cards, 28 KB).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ringfence.config import load
from ringfence.export.sinks.chat import Slack, Teams
from ringfence.export.sinks.http import Http, HttpSettings
from ringfence.export.sinks.native import Record
from ringfence.export.sinks.receivers import receivers_of
from ringfence.export.sinks.urgency import alert_name, urgency
from tests.support.receivers import alert, http_receiver

HOSTILE = "<!channel> [link](https://evil.example) *bold* @here \U0001f525"


def hostile(number: int = 1, size: int = 1) -> Record:
    """An alert whose process, container and title try to use markup, at any length."""
    made = alert(number)
    made["process"] = {**made["process"], "args": [HOSTILE * size], "exe": HOSTILE * size}
    made["rule"] = {**made["rule"], "title": "\U0001f525" * 200 * size}
    return made


def message(kind: type[Slack] | type[Teams], records: list[Record]) -> Any:
    """The body of one request."""
    with http_receiver() as server:
        kind("chat", Http(server.url, HttpSettings())).send(records)
    [body] = server.bodies
    return body


def values(node: Any, key: str) -> Iterator[Any]:
    """Every value with this key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from values(value, key)
    elif isinstance(node, list):
        for one in node:
            yield from values(one, key)


@pytest.mark.parametrize(
    "records", [[alert(1)], [alert(n) for n in range(20)], [hostile(n, 99) for n in range(20)]]
)
def test_a_message_of_slack_is_within_its_limits(records: list[Record]) -> None:
    """`text`, at most 50 blocks, a header of 150 characters, sections of 3,000, all plain text."""
    body = message(Slack, records)
    assert set(body) == {"text", "blocks"}
    assert 0 < len(body["text"]) <= 3000
    header, *sections = body["blocks"]
    assert len(sections) == len(records) <= Slack.batch_records
    assert len(body["blocks"]) <= 50
    assert header["type"] == "header"
    assert {one["type"] for one in sections} == {"section"}
    for block, most in ((header, 150), *((one, 3000) for one in sections)):
        assert set(block["text"]) == {"type", "text", "emoji"}
        assert block["text"]["type"] == "plain_text"
        assert 0 < len(block["text"]["text"]) <= most


def test_a_container_cannot_mention_a_channel_of_slack() -> None:
    """`text` is mrkdwn, where `<`, `>` and `&` are control characters; blocks are plain."""
    body = message(Slack, [hostile()])
    assert not set("<>") & set(body["text"])
    assert set(values(body["blocks"], "type")) == {"header", "section", "plain_text"}


@pytest.mark.parametrize(
    "records", [[alert(1)], [alert(n) for n in range(8)], [hostile(n, 99) for n in range(8)]]
)
def test_a_message_of_teams_is_an_adaptive_card_of_at_most_28_kilobytes(records: list[Record]) -> None:
    """The envelope that Workflows ask for; every text is cut so that the whole fits."""
    body = message(Teams, records)
    assert len(records) <= Teams.batch_records
    assert len(json.dumps(body, separators=(",", ":"))) <= 28 * 1024
    assert body["type"] == "message"
    [attachment] = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["contentUrl"] is None
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["body"]
    assert all(one["type"] == "RichTextBlock" for one in card["body"])
    colours = {"default", "dark", "light", "accent", "good", "warning", "attention"}
    runs = [run for block in card["body"] for run in block["inlines"]]
    assert all(run["type"] == "TextRun" and run["text"] and run["color"] in colours for run in runs)


def test_teams_shows_no_link_that_a_container_wrote() -> None:
    """TextBlock and FactSet interpret Markdown; a TextRun does not."""
    assert not {"TextBlock", "FactSet"} & set(values(message(Teams, [hostile()]), "type"))


def test_a_message_says_what_where_how_it_ended_and_what_to_do() -> None:
    """In both formats."""
    for kind in (Slack, Teams):
        text = "\n".join(one for one in values(message(kind, [alert(1)]), "text") if isinstance(one, str))
        for word in ("WARNING", "shop/web-0/web", "denied before it took effect", "node-1", "core-pattern",
                     "ab12cd-1", "/docs/runbooks/escape-denied.md"):  # fmt: skip
            assert word in text, (kind, word)


def test_the_title_of_a_batch_is_its_most_urgent_alert() -> None:
    """A critical one must not be hidden behind nineteen others."""
    body = message(Slack, [alert(1), alert(2, outcome="seen"), alert(3)])
    assert body["text"] == "CRITICAL: 3 alerts of Ringfence"


def test_a_chat_service_never_gets_the_shared_headers() -> None:
    """They may hold the token of another receiver; the hosts of both may differ."""
    flags = {
        "alerts.headers": ["/etc/headers"], "alerts.webhook": ["https://hooks.example/x"],
        "alerts.slack": ["https://slack.example/x"], "alerts.teams": ["https://teams.example/x"],
    }  # fmt: skip
    made = {one.name.partition("-")[0]: one for one in receivers_of(load(None, {}, flags))}
    sent = {name: getattr(one, "_http")._settings.headers for name, one in made.items()}  # noqa: B009
    assert {name: str(path) for name, path in sent.items()} == {
        "webhook": "/etc/headers", "slack": "None", "teams": "None",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("severity", "outcome", "policy", "expected"),
    [
        ("critical", "denied", "p", "warning"),
        ("high", "killed", "p", "warning"),
        ("critical", "seen", "p", "critical"),
        ("high", "kill-failed", "p", "critical"),
        ("critical", "would-deny", "p", "warning"),
        ("high", "would-kill", "p", "warning"),
        ("high", "seen", "detectors", "warning"),
        ("medium", "seen", "p", "warning"),
        ("medium", "denied", "p", "info"),
        ("low", "seen", "p", "info"),
    ],
)
def test_only_what_may_have_taken_effect_is_critical(
    severity: str, outcome: str, policy: str, expected: str
) -> None:
    """As in the shipped rules of Prometheus, and in the table of docs/reference/alerts-out.md."""
    made = alert(severity=severity, outcome=outcome, rule={"id": "x", "policy": policy})
    assert urgency(made) == expected


def test_a_changed_helper_of_the_host_is_critical() -> None:
    """The one finding of a detector that reports an effect."""
    rule = {"id": "helper-changed", "policy": "detectors"}
    assert urgency(alert(severity="critical", outcome="seen", rule=rule)) == "critical"


@pytest.mark.parametrize(
    ("rule", "name"),
    [("core-pattern", "RingfenceCorePattern"), ("a.b_c", "RingfenceABC"), ("", "RingfenceUnknown")],
)
def test_every_rule_has_an_alert_name(rule: str, name: str) -> None:
    """Letters and digits only, as routes write it."""
    assert alert_name(alert(rule={"id": rule})) == name
