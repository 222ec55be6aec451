# SPDX-License-Identifier: Apache-2.0
"""`ringfence status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ringfence.cli.output import age, colour, number, print_document, size, width
from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output, add_socket


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "status",
        run,
        text="Show the status of this node's agent: policies, containers, events, losses, resource usage.\n"
        "Exit code 1 means that the agent runs but reports problems; the first line names them.",
        examples="ringfence status\nringfence status -o json | jq .policies.generation",
    )
    add_output(parser)
    add_socket(parser)


def run(options: Any) -> int:
    """Queries the agent and prints its status."""
    from ringfence.cli.client import request

    status = request(options.socket, "status")
    if options.output in DOCUMENTS:
        print_document(status, options.output)
    else:
        for name, text in _lines(status):
            print(f"{colour(f'{name:<12}', 'bold')} {text}")
    return 1 if status["problems"] else 0


def _lines(status: Mapping[str, Any]) -> list[tuple[str, str]]:
    policies, containers, process = status["policies"], status["containers"], status["process"]
    state = colour("; ".join(status["problems"]), "red") if status["problems"] else colour("ready", "green")
    tiers = _counts(policies["mechanisms"])
    lines = [
        ("state", state),
        ("agent", f"{status['version']}, pid {status['pid']}, up {age(status['uptime_seconds'])}, started in "
         f"{status['startup_seconds'] * 1000:.0f} ms (attach {status['attach_seconds'] * 1000:.0f} ms)"),
        ("policies", f"{policies['policies']} policies, {policies['rules']} rules, mode {status['mode']}, "
         f"generation {policies['generation']}, digest {policies.get('digest') or 'none'}"
         + (f" ({tiers})" if tiers else "")),
        ("containers", f"{containers['live']} live, {containers['armed_tasks']} armed tasks, "
         f"{containers['created']} since the start"),
        ("alerts", _counts(status["alerts"]) or "none"),
        ("events", _counts(status["events"]) or "none"),
        ("lost", _counts(status["lost"]) or "nothing"),
        ("output", f"{status['output']['name']}: {number(status['output']['written'])} lines"),
        ("node", _node(status["node"])),
        ("hooks", _hooks(status["node"])),
        ("cost", f"{process['cpu_seconds']:.1f} s CPU, {size(process['rss_bytes'])}"),
    ]  # fmt: skip
    lines += [("probe", _probe(row)) for row in status.get("probes", ())]
    lines += [("blind", colour(text, "yellow")) for text in status["node"]["blind"][:20]]
    lines += [("problem", problem) for problem in policies["problems"][:20]]
    return [(name, text if "\x1b" in text else text[: width() * 3]) for name, text in lines]


def _node(node: Mapping[str, Any]) -> str:
    name = "/".join(filter(None, (node.get("cluster"), node.get("name"))))
    return ", ".join(filter(None, (name, f"Linux {node['kernel']}, cgroup {node['hierarchy']}")))


def _hooks(node: Mapping[str, Any]) -> str:
    """How calls are denied, and what that misses."""
    if node.get("skips") and not node["hooks"]:
        return colour(f"none deny: {node['skips']}", "yellow")
    if node.get("skips"):
        return colour(f"{node['hooks']} deny by {node['hook_mechanism']}: {node['skips']}", "yellow")
    if node.get("hook_mechanism"):
        return f"{node['hooks']} deny by {node['hook_mechanism']}"
    return f"none deny ({node['hook_lack']})" if node.get("hook_lack") else "none deny"


def _probe(row: Mapping[str, Any]) -> str:
    """The status of one custom probe, on a line."""
    colours = {"running": "green", "loading": "dim", "outdated": "yellow", "failed": "red"}
    text = f"{row['name']}: {colour(row['state'], colours[row['state']])}"
    if "received" in row:
        text += f", {number(row['received'])} events, lost {_counts(row['lost']) or 'nothing'}"
    return "; ".join([text, *row["problems"][:3]])


def _counts(counts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {number(count)}" for name, count in sorted(counts.items()) if count)
