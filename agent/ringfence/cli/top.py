# SPDX-License-Identifier: Apache-2.0
"""`ringfence top`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from ringfence.cli.output import number, print_document, room, table
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output, add_socket
from ringfence.cli.top_view import COLUMNS, SORTS, View, listing, name_of, ordered, pressed, screen


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "top",
        run,
        text="Show containers by events per second. On a terminal the table fills the screen and is renewed\n"
        "until `q`; `h` shows the keys for sorting, filtering and pausing. Elsewhere it is printed once.",
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
        help="maximum number of containers printed (default: 40)",
    )  # fmt: skip
    parser.add_argument("--sort", choices=SORTS, default="activity", help="sort order (default: activity)")
    add_output(parser)
    add_socket(parser)


def run(options: Any) -> int:
    """Prints the difference of two snapshots, repeatedly on a terminal."""
    from ringfence.cli.client import request

    endless = not options.once and options.count is None
    if endless and options.output in ("table", "wide") and _is_screen():
        return _live(options)
    before = request(options.socket, "top")
    for _ in range(1 if options.once else options.count or 1):
        time.sleep(options.interval)
        now = request(options.socket, "top")
        _print(options, rates(before, now))
        before = now
    return 0


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _live(options: Any) -> int:
    """Fills the screen until the user quits."""
    from ringfence.cli.client import request
    from ringfence.cli.screen import Screen

    view = View(sort=options.sort)
    before = request(options.socket, "top")
    rows = rates(before, before)
    with Screen() as terminal:
        due = time.monotonic() + options.interval
        while not view.ended:
            terminal.draw(screen(rows, view, terminal.size))
            for key in terminal.keys(due):
                view = pressed(view, key)
            if time.monotonic() >= due:
                if not view.paused:
                    now = request(options.socket, "top")
                    rows, before = rates(before, now), now
                due = time.monotonic() + options.interval
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
            column: sum(per_second.get(name, 0) for name in names) for column, names in COLUMNS.items()
        }
        rows.append({**container, "rates": columns})
    return rows


def _print(options: Any, rows: list[dict[str, Any]]) -> None:
    rows = ordered(rows, View(sort=options.sort))[: options.limit]
    if options.output in DOCUMENTS:
        print_document(rows, options.output)
        return
    if limit := room(options):
        print("\n".join([*listing(rows, limit), *([] if rows else ["no containers"])]), flush=True)
        return
    cells = [
        [name_of(row), str(row["tasks"]), *(number(rate) if rate else "-" for rate in row["rates"].values()),
         str(row.get("image") or "-")]
        for row in rows
    ]  # fmt: skip
    lines = table(["CONTAINER", "TASKS", *COLUMNS, "IMAGE"], cells)
    print("\n".join(lines if rows else [*lines, "no containers"]), flush=True)


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
