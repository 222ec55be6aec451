# SPDX-License-Identifier: Apache-2.0
"""`ringfence tree`."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from ringfence.cli.output import colour, cut, print_document, room
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output, add_socket
from ringfence.containers.naming import full_name

_INDENT = 60


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "tree",
        run,
        text="Show the armed processes (those that run workload code) of all or some containers, with\n"
        "their users and start times.",
        examples="ringfence tree\nringfence tree web-1\nringfence tree -o json 3f2a",
    )
    parser.add_argument(
        "container", nargs="*", help="id (prefix), name, pod, NAMESPACE/POD or namespace (default: all)"
    )
    add_output(parser)
    add_socket(parser)


def run(options: Any) -> int:
    """Queries the agent and prints the process trees."""
    from ringfence.cli.client import request

    containers = request(options.socket, "tree", containers=options.container)
    if options.output in DOCUMENTS:
        print_document(containers, options.output)
        return 0
    for container in containers:
        for line in lines(container, room(options)):
            print(line)
    if not containers:
        print("no such container" if options.container else "no containers")
    return 1 if options.container and not containers else 0


def lines(container: Mapping[str, Any], limit: int = 0) -> Iterator[str]:
    """Yields one container's header line and its processes, children below their parents."""
    facts = (str(container.get(part) or "") for part in ("id", "name", "namespace", "pod"))
    about = [str(container[part]) for part in ("image", "state") if container.get(part)]
    yield colour(full_name(*facts), "bold") + (f"  {'  '.join(about)}" if about else "")
    children: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    pids = {process["pid"] for process in container["processes"]}
    for process in sorted(container["processes"], key=lambda process: process["pid"]):
        # A process is a root if its parent is outside the container (a shim), or is itself (a reused pid).
        inside = process["ppid"] in pids and process["ppid"] != process["pid"]
        children[process["ppid"] if inside else 0].append(process)
    if container["processes"]:
        yield colour(f"  {'PID':>7} {'USER':<6} {'START':<8} COMMAND", "dim")
    for line in _branch(children):
        yield cut(line, limit) if limit else line
    if container.get("more"):
        yield f"  ... and {container['more']} more"


def _branch(children: Mapping[int, list[Mapping[str, Any]]]) -> Iterator[str]:
    """Depth first without recursion, as the tree of a fork bomb can be arbitrarily deep."""
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    tee, corner, bar = ("\u251c\u2500 ", "\u2514\u2500 ", "\u2502  ") if unicode else ("|- ", "`- ", "|  ")
    stack = [(process, "", "") for process in reversed(children.get(0, ()))]
    shown: set[int] = set()
    while stack:
        process, indent, mark = stack.pop()
        if process["pid"] in shown:
            continue
        shown.add(process["pid"])
        words = " ".join(process["args"]) or process["exe"] or process["comm"]
        yield f"  {process['pid']:>7} {_user(process):<6} {_start(process):<8} {indent}{mark}{words}"
        # Only so many levels are drawn: the name of a process must be seen, however deep it is.
        deeper = (indent + {"": "", tee: bar, corner: "   "}[mark])[:_INDENT]
        below = children.get(process["pid"], ())
        stack += [(child, deeper, tee if place else corner) for place, child in enumerate(reversed(below))]


def _user(process: Mapping[str, Any]) -> str:
    """Returns the user's number: its name is that of the image's files, not of this node's."""
    uid = process.get("uid")
    return "root" if uid == 0 else "-" if uid is None else str(uid)


def _start(process: Mapping[str, Any]) -> str:
    """Returns the time of the start, or the day if it was not today."""
    try:
        started = datetime.fromisoformat(str(process.get("started"))).astimezone()
    except ValueError:
        return "-"
    today = started.date() == datetime.now().astimezone().date()
    return started.strftime("%H:%M:%S" if today else "%b %d")
