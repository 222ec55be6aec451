# SPDX-License-Identifier: Apache-2.0
"""The table of commands, in the order of the help. `ringfence --help` needs nothing else of a command."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["COMMANDS"]


class Command(NamedTuple):
    """The module in ringfence.cli that registers a command, and the command's line in the help."""

    module: str
    help: str


COMMANDS = {
    "agent": Command("agent", "watch and defend this node"),
    "init": Command("init", "write a first configuration"),
    "doctor": Command("doctor", "check this node in ten lines, and say what to change"),
    "config": Command("config", "show the configuration that holds"),
    "status": Command("status", "show the agent's status"),
    "events": Command("events", "show alerts and events, live with --follow"),
    "top": Command("top", "containers by activity, live"),
    "tree": Command("tree", "processes by container"),
    "policy": Command("policy", "check, explain, list and test policies"),
    "probe": Command("probe", "show what this kernel can enforce; manage custom probes"),
    "audit": Command("audit", "check how containers and this node are configured, with fixes"),
    "attest": Command("attest", "show and verify evidence of confidential machines"),
    "run": Command("run", "run a program in a fenced sandbox"),
    "ps": Command("sandboxes", "list sandboxes"),
    "exec": Command("sandboxes", "run another program in a sandbox"),
    "logs": Command("sandboxes", "show what a detached sandbox printed"),
    "stop": Command("sandboxes", "stop sandboxes"),
    "rm": Command("sandboxes", "remove sandboxes"),
    "image": Command("image", "import, list and remove images"),
    "completion": Command("completion", "print a completion script for a shell"),
    "version": Command("version", "print the version"),
}
