# SPDX-License-Identifier: Apache-2.0
"""`ringfence image`: manages the image store, through the runtime's own command."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

from ringfence.cli.parser import DOCUMENTS, Commands, add_command, add_output, finish

# The runtime's commands have no examples: it is used by programs.
_EXAMPLES = {
    "import": "import saved.tar --name alpine",
    "list": "list",
    "inspect": "inspect alpine",
    "rm": "rm alpine",
    "sweep": "sweep",
}


def register(commands: Commands) -> None:
    """Add the command and its subcommands."""
    from ringfence_runtime.images.cli import add_commands

    parser = add_command(
        commands,
        "image",
        run,
        text="Manage the images that `ringfence run` starts sandboxes from. Use skopeo for registries.",
        examples=(
            "ringfence image import ./alpine-layout:3.20\n"
            "ringfence image import saved.tar --name alpine\n"
            "ringfence image list -o json\n"
            "ringfence image rm alpine"
        ),
    )
    add_commands(parser, add_output)
    parser.set_defaults(image_document=_document, image_table=_table)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, part in action.choices.items():
                finish(part, f"ringfence image {_EXAMPLES[name]}")


def run(options: Any) -> int:
    """Runs the chosen subcommand."""
    from ringfence.cli.progress import progress
    from ringfence.sandbox.errors import translated

    shown = progress("importing") if options.image_command == "import" else contextlib.nullcontext()
    with translated(1), shown:
        options.image_run(options)
    return 0


def _document(value: Any, options: Any) -> None:
    """A record has no table: `inspect` prints JSON by default."""
    from ringfence.cli.output import print_document

    print_document(value, options.output if options.output in DOCUMENTS else "json")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], options: Any) -> None:
    from ringfence.cli.output import room, table, visible

    print("\n".join(table(heads, [[visible(cell) for cell in row] for row in rows], limit=room(options))))
