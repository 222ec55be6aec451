# SPDX-License-Identifier: Apache-2.0
"""`ringfence top`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ringfence.cli.output import number, print_json, table
from ringfence.cli.parser import Commands, add_command, add_output, add_socket

# column -> the counters that are added up in it (see docs/metrics.md)
_COLUMNS: Mapping[str, Sequence[str]] = {
    "EXEC": ("exec",),
    "FORK": ("fork",),
    "OPEN": ("open",),
    "CONN": ("connect",),
    "MOUNT": ("mount", "namespace"),
    "KERNEL": ("kernel", "trace"),
    "OTHER": (
        "credential",
        "file",
        "memory",
        "socket",
        "keyring",
        "process",
        "device",
        "sysctl",
        "bind",
        "sendmsg",
    ),
    "ALERT": ("alert",),
    "STOPPED": ("deny", "kill"),
}
_SORTS = ("activity", "alerts", "tasks", "name")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "top",
        run,
        help="containers by activity, live",
        text="Show containers by events per second. On a terminal the table refreshes until interrupted;\n"
        "otherwise it is printed once.",
        examples="ringfence top\nringfence top --once --sort alerts\nringfence top -n 5 -i 2 | tee top.txt",
    )
    parser.add_argument(
        "-1", "--once", action="store_true", help="print one table, after one interval, and exit"
    )
    parser.add_argument("-n", "--count", type=_positive, metavar="N", help="print N tables and exit")
    parser.add_argument(
        "-i", "--interval", type=_seconds, default=1.0, metavar="SECONDS",
        help="time between two tables, in seconds (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "-l", "--limit", type=_positive, default=40, metavar="ROWS",
        help="maximum number of containers shown (default: 40)",
    )  # fmt: skip
    parser.add_argument("--sort", choices=_SORTS, default="activity", help="sort order (default: activity)")
    add_output(parser, "table", "json")
    add_socket(parser)


def run(options: Any) -> int:
    """Prints the difference of two snapshots, repeatedly on a terminal."""
    from ringfence.cli.client import request

    live = sys.stdout.isatty() and options.output == "table"
    left = 1 if options.once else options.count or (None if live else 1)
    redraw = live and left is None
    before = request(options.socket, "top")
    while left is None or left > 0:
        time.sleep(options.interval)
        now = request(options.socket, "top")
        rows = rates(before, now)
        before = now
        _show(options, rows, redraw=redraw)
        left = None if left is None else left - 1
    return 0


def rates(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the counts per second of every container in the second snapshot."""
    seconds = max(now["time"] - before["time"], 1e-3)
    old = {container["cgroup"]: container["counts"] for container in before["containers"]}
    rows = []
    for container in now["containers"]:
        then = old.get(container["cgroup"], {})
        per_second = {
            name: max(0, count - then.get(name, 0)) / seconds for name, count in container["counts"].items()
        }
        columns = {
            column: sum(per_second.get(name, 0) for name in names) for column, names in _COLUMNS.items()
        }
        rows.append({**container, "rates": columns})
    return rows


def _show(options: Any, rows: list[dict[str, Any]], *, redraw: bool) -> None:
    rows = sorted(rows, key=lambda row: _order(row, options.sort))[: options.limit]
    if options.output == "json":
        print_json(rows)
        return
    lines = table(["CONTAINER", "IMAGE", "TASKS", *_COLUMNS], [_cells(row) for row in rows])
    if not rows:
        lines.append("no containers")
    # Cursor home, then each line cleared to its end, then the rest of the screen: avoids flicker.
    print("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\n\x1b[J" if redraw else "\n".join(lines), flush=True)


def _order(row: Mapping[str, Any], by: str) -> tuple[float | str, ...]:
    activity = -sum(row["rates"].values())
    if by == "alerts":
        return (-row["rates"]["ALERT"] - row["rates"]["STOPPED"], activity)
    if by == "tasks":
        return (-row["tasks"], activity)
    return (row.get("name") or row["id"],) if by == "name" else (activity, row["id"])


def _cells(row: Mapping[str, Any]) -> list[str]:
    name = "/".join(part for part in (row.get("namespace"), row.get("pod") or row.get("name")) if part)
    image = str(row.get("image") or "-")
    shown = [(name or row["id"][:12])[:32], image[-28:], str(row["tasks"])]
    return shown + [number(rate) if rate else "-" for rate in row["rates"].values()]


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 3600")
    return value
