# SPDX-License-Identifier: Apache-2.0
"""`ringfence agent`: the daemon. Every configuration key is also a flag."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ringfence.cli.parser import Commands, add_command
from ringfence.config import KEYS, Key, load
from ringfence.places import DEFAULT_FILE


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "agent",
        run,
        text="Watch and defend this node until SIGTERM. Alerts are written as JSON lines to standard\n"
        "output, the agent's own log to standard error; that is text on a terminal.\n"
        "SIGHUP reloads the policies and reopens the output file. Each key can also be set in\n"
        f"{DEFAULT_FILE} (http: {{listen: ...}})\n"
        "and as a variable (RINGFENCE_HTTP_LISTEN); flags override variables, variables the file.",
        examples=(
            "ringfence agent\n"
            "ringfence agent --mode audit --policies ./policies\n"
            "ringfence agent --containers-patterns 'myapp-*' --observe file.open=activity\n"
            "ringfence agent --check --config agent.yaml\n"
            "ringfence agent --uninstall"
        ),
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"configuration file (default: {DEFAULT_FILE}, if present)",
    )
    parser.add_argument(
        "--check", action="store_true", help="check configuration, policies and custom probes, then exit"
    )
    parser.add_argument(
        "--uninstall", action="store_true", help="remove everything that agents left on this node, then exit"
    )
    parser.add_argument("--debug", action="store_true", help="on an error, show the complete verifier log")
    keys = parser.add_argument_group("configuration")
    for key in KEYS:
        keys.add_argument(
            key.flag,
            dest=_destination(key),
            action="append",
            metavar=key.metavar.replace("%", "%%"),
            help=key.help + _default(key),
        )


def run(options: Any) -> int:
    """Checks the configuration, then runs the agent."""
    config = load(options.config, flags=_flags(options))
    if options.uninstall:
        from ringfence.daemon.startup.uninstall import uninstall

        for line in uninstall(config):
            print(line)
        return 0
    if options.check:
        return _check(config)
    from ringfence.daemon.boot import run as run_agent

    return run_agent(config)


def _check(config: Any) -> int:
    from ringfence.errors import ProbeError
    from ringfence.policy import NodeTiers, compile_policies, load_policies
    from ringfence.policy.review import refuse
    from ringfence.probes.read import Found, read_directory

    found = read_directory(config.probes_directory) if config.probes_directory else Found({}, {})
    if found.problems:
        raise ProbeError([problem for problems in found.problems.values() for problem in problems])
    policies = load_policies(config.policies, found.words())
    compile_policies(policies, NodeTiers.usual(), config.mode)
    refuse(policies)
    probes = f", {len(found.definitions)} custom probes are readable" if config.probes_directory else ""
    print(f"configuration and {len(policies.policies)} policies are valid{probes}")
    return 0


def _flags(options: argparse.Namespace) -> dict[str, Sequence[str]]:
    given = {key.path: getattr(options, _destination(key)) for key in KEYS}
    return {path: words for path, words in given.items() if words}


def _destination(key: Key) -> str:
    return "key_" + key.path.replace(".", "_")


def _default(key: Key) -> str:
    if key.default in ((), {}):
        return "; repeatable"
    if key.default == "":
        return ""
    shown = {True: "yes", False: "no", None: "off"}.get(key.default) if not key.many else None
    if key.path == "output":
        shown = "stdout"
    elif key.many:
        shown = ", ".join(map(str, key.default)) + "; repeatable"
    elif shown is None or type(key.default) is int:
        shown = f"{key.default >> 20}MiB" if key.metavar == "SIZE" else str(key.default)
    return f" (default: {shown})"
