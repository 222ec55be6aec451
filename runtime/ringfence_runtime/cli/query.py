# SPDX-License-Identifier: Apache-2.0
"""state, list and ps."""

from __future__ import annotations

import os

from ringfence_linux import strictjson
from ringfence_runtime.cli.options import Globals, expect, parse
from ringfence_runtime.errors import Error, UsageError
from ringfence_runtime.state import Store

__all__ = ["list_containers", "ps", "state"]


def state(settings: Globals, arguments: list[str]) -> int:
    """Prints the state."""
    [name] = expect(parse(arguments, {}), "state", 1, 1)
    print(strictjson.dumps(Store(settings.root).load(name).describe(), indent="  "))
    return 0


def list_containers(settings: Globals, arguments: list[str]) -> int:
    """Prints all containers."""
    parsed = parse(arguments, {"format": "s", "f": "=format", "quiet": "f", "q": "=quiet"}, interleaved=True)
    expect(parsed, "list", 0, 0)
    form = parsed.text("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"unknown format {form!r}", hint="table or json")
    store = Store(settings.root)
    rows = []
    for name in store.names():
        try:
            rows.append(store.load(name).describe())
        except Error:
            continue  # it was deleted, or is being created
    if form == "json":
        print(strictjson.dumps(rows))
    elif parsed.flag("quiet"):
        for row in rows:
            print(row["id"])
    else:
        _table(
            [
                ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"),
                *(
                    (row["id"], str(row["pid"]), row["status"], row["bundle"], row["created"], row["owner"])
                    for row in rows
                ),
            ]
        )
    return 0


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def ps(settings: Globals, arguments: list[str]) -> int:
    """Prints the processes."""
    parsed = parse(arguments, {"format": "s", "f": "=format"})
    words = expect(parsed, "ps", 1)
    form = parsed.text("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"unknown format {form!r}", hint="table or json")
    container = Store(settings.root).load(words[0])
    pids = container.processes()
    if form == "json":
        print(strictjson.dumps(pids))
        return 0
    return _ps_table(pids, words[1:] or ["-ef"])


def _ps_table(pids: list[int], options: list[str]) -> int:
    """Filters the host's ps by its PID column."""
    import subprocess

    try:
        output = subprocess.run(["ps", *options], check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Error(f"ps: {error}") from None
    lines = output.splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise Error("ps printed no PID column")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    os.write(
        1,
        (
            "\n".join([lines[0], *(line for line in lines[1:] if line.split()[column] in wanted)]) + "\n"
        ).encode(),
    )
    return 0
