# SPDX-License-Identifier: Apache-2.0
"""`ringfence events`."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ringfence.cli.output import SEVERITY_COLOURS, colour, cut, document, room, visible
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output, add_socket
from ringfence.containers.naming import full_name
from ringfence.severity import SEVERITIES

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_HEAD = f"{'TIME':<12} {'SEVERITY':<8} {'OUTCOME':<11} {'CONTAINER':<24} COMMAND[PID] EVENT RULE"
_COMMAND = 120  # letters of a command line
_ITEMS = 3  # of a list
# ringfence.response.alert.Outcome -> colour: stopped, let through, or not stopped although that was tried
_COLOURS = {
    "denied": "green", "killed": "green", "seen": "yellow", "would-deny": "yellow", "would-kill": "yellow",
    "kill-failed": "red",
}  # fmt: skip
_OUTCOME = max(map(len, _COLOURS))


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "events",
        run,
        text="Show recent alerts and events (the agent keeps the last 1000 alerts and lifecycle events);\n"
        "with --follow also new ones. Without filters: alerts and container lifecycle events.",
        examples=(
            "ringfence events --follow\n"
            "ringfence events --since 1h --severity high\n"
            "ringfence events -f --container shop/web-1 --event process.exec\n"
            "ringfence events -f --all -o json | jq .details"
        ),
    )
    parser.add_argument("-f", "--follow", action="store_true", help="keep running until interrupted")
    parser.add_argument(
        "--since", type=_since, default=0.0, metavar="TIME",
        help="only records since this time: 30s, 10m, 2h or 1d ago, or an ISO 8601 time",
    )  # fmt: skip
    parser.add_argument(
        "-c", "--container", action="append", default=[], metavar="C",
        help="only this container (id or name), pod (POD or NAMESPACE/POD) or namespace; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "-e", "--event", action="append", default=[], metavar="EVENT",
        help="only this event, such as file.open; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "-r", "--rule", action="append", default=[], metavar="ID",
        help="only alerts of the rule with this id; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "-s", "--severity", choices=SEVERITIES, default="info",
        help="only alerts of at least this severity (default: info)",
    )  # fmt: skip
    parser.add_argument("--alerts", action="store_true", help="show only alerts")
    parser.add_argument("--all", action="store_true", help="also show events that no rule matched")
    add_output(parser)
    add_socket(parser)


def run(options: Any) -> int:
    """Prints records as they arrive."""
    from ringfence.cli.client import subscribe

    records = subscribe(
        options.socket, follow=options.follow, since=options.since, containers=options.container,
        events=options.event, rules=options.rule, severity=options.severity, alerts=options.alerts,
        activity=options.all,
    )  # fmt: skip
    if options.output not in DOCUMENTS and sys.stdout.isatty():
        print(_HEAD)
    for record in records:
        print(shown(record, options), flush=options.follow)
    return 0


def shown(record: Mapping[str, Any], options: Any) -> str:
    """Returns a record in the format that was asked for: one line, or one YAML document."""
    if options.output == "json":
        return json.dumps(record, ensure_ascii=False)
    if options.output == "yaml":
        return document(record).rstrip("\n")
    return compact(record, room(options), wide=options.output == "wide")


def compact(record: Mapping[str, Any], limit: int = 0, *, wide: bool = False) -> str:
    """Returns a record as one line: time, severity, outcome, container, command, and what was tried.

    What no rule matched is cut to `limit` columns; an alert is not. `wide`: no part is shortened.
    """
    if record.get("event") == "dropped":
        return colour(f"... {record.get('count')} records lost: this terminal reads too slowly", "yellow")
    severity = str(record.get("severity") or "")
    outcome = str(record.get("outcome") or "")
    head = f"{_clock(str(record.get('time') or ''))} "
    word = visible(f"{severity or '-':<8} ")
    ended = visible(f"{outcome or '-':<{_OUTCOME}} ")
    container = record.get("container") or {}
    facts = (str(container.get(part) or "") for part in ("id", "name", "namespace", "pod"))
    rest = [
        f"{full_name(*facts) or '-':<24}",
        _command(record.get("process") or {}, None if wide else _COMMAND),
        *_what(record, wide=wide),
    ]
    # The agent escaped all observed text; here it is made sure of.
    text = " ".join(visible(part) for part in rest if part).rstrip()
    if limit and not severity:
        text = cut(text, max(limit - len(head + word + ended), 1))
    return (
        head
        + colour(word, SEVERITY_COLOURS.get(severity, "dim"))
        + colour(ended, _COLOURS.get(outcome, "dim"))
        + text
    )


def _command(process: Mapping[str, Any], most: int | None) -> str:
    """Returns the command line and the PID; the name of the thread if nothing else is known."""
    words = " ".join(map(str, process.get("args") or [])) or process.get("exe") or process.get("comm")
    return f"{str(words or '-')[:most]}[{process.get('pid') or '-'}]"


def _what(record: Mapping[str, Any], *, wide: bool) -> list[str]:
    """Returns the event, the rule with its title, and what was tried; of other records the details."""
    rule = record.get("rule") or {}
    title = f"{rule.get('title')}:" if rule.get("title") else ""
    tried = record.get("tried") or _details(record.get("details") or {}, wide=wide)
    if tried == rule.get("title"):  # of a finding
        title, tried = str(tried), _details(record.get("details") or {}, wide=wide)
    return [str(word) for word in (record.get("event") or "-", rule.get("id"), title, tried) if word]


def _details(details: Mapping[str, Any], *, wide: bool) -> str:
    words = []
    for name, value in details.items():
        items = list(map(str, value)) if isinstance(value, list) else [str(value)]
        if len(items) > _ITEMS and not wide:
            items = [*items[:_ITEMS], f"+{len(items) - _ITEMS}"]
        text = " ".join(items)
        pointers = name == "args" and text.startswith("0x")
        if text and not pointers and name not in ("nr", "inode", "fs_magic", "flags_open"):
            words.append(f"{name}={text}")
    return " ".join(words)[: None if wide else 400]


def _clock(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return "--:--:--.---"


def _since(text: str) -> float:
    if match := re.fullmatch(r"(\d{1,9})([smhd])", text):
        return time.time() - int(match[1]) * _UNITS[match[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a duration (10m) nor a time (2026-11-23T12:00)"
        ) from None
