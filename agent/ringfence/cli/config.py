# SPDX-License-Identifier: Apache-2.0
"""`ringfence config show`: the values that hold, and where each comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence.cli.output import colour, print_document, room, table, visible
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "config",
        run,
        text="Show the agent's configuration.",
        examples="ringfence config show\nringfence config show --changed",
    )
    parts = parser.add_subparsers(title="subcommands", metavar="COMMAND", required=True, parser_class=Parser)
    show = add_command(
        parts,
        "show",
        run,
        help="show each key's value, and where it comes from",
        text="Show the value of each configuration key and where it comes from: the file, a RINGFENCE_\n"
        "variable of this shell, or the default. Flags of a running agent are not known here, and\n"
        "a service may have other variables. Of receivers only the server is shown.",
        examples=(
            "ringfence config show\n"
            "ringfence config show --changed\n"
            "ringfence config show --config agent.yaml -o json | jq .mode"
        ),
    )
    show.add_argument("--config", type=Path, metavar="FILE", help="the agent's configuration file")
    show.add_argument("--changed", action="store_true", help="only keys that are set somewhere")
    add_output(show)


def run(options: Any) -> int:
    """Prints the configuration."""
    from ringfence.config import KEYS
    from ringfence.config.load import DEFAULT, load_with_sources
    from ringfence.config.sample import shown_value

    config, sources = load_with_sources(options.config)
    found = {
        key.path: {"value": shown_value(key, getattr(config, key.field)), "from": sources[key.path]}
        for key in KEYS
        if not options.changed or sources[key.path] != DEFAULT
    }
    if options.output in DOCUMENTS:
        print_document(found, options.output)
        return 0
    rows = [(path, visible(_words(one["value"])), visible(one["from"])) for path, one in found.items()]
    colours = {(n, 1): "cyan" for n, row in enumerate(rows) if row[2] != DEFAULT}
    lines = table(("KEY", "VALUE", "FROM"), rows, colours, room(options))
    print("\n".join(lines if rows else [colour("every key has its default", "dim")]))
    return 0


def _words(value: Any) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)
