# SPDX-License-Identifier: Apache-2.0
"""`ringfence tree`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.cli.output import colour, print_json, width
from ringfence.cli.parser import Commands, add_command, add_output, add_socket


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "tree",
        run,
        help="processes by container",
        text="Show the armed processes (those that run workload code) of all or some containers.",
        examples="ringfence tree\nringfence tree web-1\nringfence tree -o json 3f2a",
    )
    parser.add_argument(
        "container", nargs="*", help="id (prefix), name, pod, NAMESPACE/POD or namespace (default: all)"
    )
    add_output(parser, "text", "json")
    add_socket(parser)


def run(options: Any) -> int:
    """Queries the agent and prints the process trees."""
    from ringfence.cli.client import request

    containers = request(options.socket, "tree", containers=options.container)
    if options.output == "json":
        print_json(containers)
        return 0
    for container in containers:
        for line in lines(container):
            print(line)
    if not containers:
        print("no such container" if options.container else "no containers")
    return 1 if options.container and not containers else 0


def lines(container: Mapping[str, Any]) -> Iterator[str]:
    """Yields one container's header line and its processes, children below their parents."""
    about = [str(container.get(part)) for part in ("name", "image", "pod", "state") if container.get(part)]
    yield colour(str(container["id"])[:12], "bold") + (f"  {'  '.join(about)}" if about else "")
    children: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    pids = {process["pid"] for process in container["processes"]}
    for process in sorted(container["processes"], key=lambda process: process["pid"]):
        # A process is a root if its parent is outside the container (a shim), or is itself (a reused pid).
        inside = process["ppid"] in pids and process["ppid"] != process["pid"]
        children[process["ppid"] if inside else 0].append(process)
    yield from _branch(children)
    if container.get("more"):
        yield f"  ... and {container['more']} more"


def _branch(children: Mapping[int, list[Mapping[str, Any]]]) -> Iterator[str]:
    """Depth first without recursion, as the tree of a fork bomb can be arbitrarily deep."""
    stack = [(process, "") for process in reversed(children.get(0, ()))]
    shown: set[int] = set()
    while stack:
        process, indent = stack.pop()
        if process["pid"] in shown:
            continue
        shown.add(process["pid"])
        words = " ".join(process["args"]) or process["exe"] or process["comm"]
        text = f"{indent[:60]}  {process['pid']} {words}"
        yield text[: max(width(), 40)]
        stack += [(child, indent + "  ") for child in reversed(children.get(process["pid"], ()))]
