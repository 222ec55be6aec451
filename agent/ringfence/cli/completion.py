# SPDX-License-Identifier: Apache-2.0
"""`ringfence completion`: generated from the parser, so it is always up to date."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence.cli.parser import Commands, Parser, add_command
from ringfence.errors import Error

_SHELLS = ("bash", "zsh", "fish")
_FILES = ("PATH", "FILE")  # in the metavar of an argument
_SANDBOXES = "ringfence ps --all 2>/dev/null | sed '1d; s/ .*//'"
_IMAGES = "ringfence image list 2>/dev/null | sed '1d; s/ .*//'"
_NAMES = {"exec": _SANDBOXES, "logs": _SANDBOXES, "stop": _SANDBOXES, "rm": _SANDBOXES,
          "inspect": _IMAGES, "image rm": _IMAGES}  # fmt: skip


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "completion",
        run,
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
    print(shtab.complete(parser_with_values(), shell=options.shell))
    return 0


def parser_with_values() -> Parser:
    """Returns the parser of all commands, whose arguments say which values they take.

    It is for shtab alone: a list of words that only suggests would refuse other values.
    """
    from ringfence.cli.main import build_parser
    from ringfence.config import KEYS

    parser = build_parser()
    words = {key.flag: tuple(getattr(key.parse, "words", ())) for key in KEYS}
    for command, action in _arguments(parser):
        _describe(command, action, words)
    return parser


def _arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from _arguments(part)
        elif action.nargs != 0 and action.choices is None:
            yield parser.prog.removeprefix("ringfence "), action


def _describe(command: str, action: argparse.Action, words: dict[str, tuple[str, ...]]) -> None:
    import shtab

    forms = [form.partition("[")[0].partition(":")[0] for form in str(action.metavar or "").split("|")]
    fixed = words.get(action.option_strings[-1]) if action.option_strings else ()
    names = _NAMES.get(command) or _NAMES.get(command.rpartition(" ")[2])
    complete = None
    if fixed or (len(forms) > 1 and all(form.islower() for form in forms)):
        action.choices = fixed or forms
    elif "DIR" in forms:
        complete = shtab.DIRECTORY
    elif action.type is Path or any(form in _FILES for form in forms):
        complete = shtab.FILE
    elif names and not action.option_strings and action.metavar != "COMMAND...":
        complete = shtab.cmd(names)
    if complete:
        action.complete = complete  # type: ignore[attr-defined]  # an attribute that shtab reads
