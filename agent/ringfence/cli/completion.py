# SPDX-License-Identifier: Apache-2.0
"""`ringfence completion`: generated from the parser, so it is always up to date."""

from __future__ import annotations

from typing import Any

from ringfence.cli.parser import Commands, add_command
from ringfence.errors import Error

_SHELLS = ("bash", "zsh", "fish")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "completion",
        run,
        help="print a completion script for a shell",
        text="Print a completion script for a shell.",
        examples=(
            "ringfence completion bash > /usr/share/bash-completion/completions/ringfence\n"
            'ringfence completion zsh > "${fpath[1]}/_ringfence"\n'
            "ringfence completion fish > ~/.config/fish/completions/ringfence.fish"
        ),
    )
    parser.add_argument("shell", choices=_SHELLS)


def run(options: Any) -> int:
    """Prints the script."""
    try:
        import shtab
    except ImportError as error:
        raise Error("the package shtab is not installed", hint="pip install shtab") from error
    from ringfence.cli.main import build_parser

    print(shtab.complete(build_parser(), shell=options.shell))
    return 0
