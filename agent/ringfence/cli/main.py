# SPDX-License-Identifier: Apache-2.0
"""`ringfence`: selects the command, runs it, and turns an Error into two lines and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ringfence.cli.commands import COMMANDS
from ringfence.cli.output import print_error
from ringfence.cli.parser import Parser, new_parser
from ringfence.errors import Error

__all__ = ["build_parser", "main"]

_SEALED = frozenset(("run", "exec"))  # commands that start a workload: run from a sealed interpreter


def build_parser(only: str = "") -> Parser:
    """Returns the parser of all commands, or of the command `only`."""
    parser, commands = new_parser()
    for module in dict.fromkeys(command.module for name, command in COMMANDS.items() if only in ("", name)):
        import_module(f"ringfence.cli.{module}").register(commands)
    return parser


def _overview() -> Parser:
    """Returns a parser that knows the names of the commands, and imports none of their modules."""
    parser, commands = new_parser()
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (see `ringfence --help`)."""
    # Observed text is escaped, but the terminal's encoding may still lack a character.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # `ringfence events | head`: not an error. The interpreter flushes standard output again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _run(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    only = words[0] if words and words[0] in COMMANDS else ""
    if only in _SEALED and arguments is None and words[1:] not in (["-h"], ["--help"]):
        _seal()
    if words in ([], ["help"]):
        _overview().print_help()
        return 0
    parser = build_parser(only) if only else _overview()
    if not only and not words[0].startswith("-"):
        parser.error(f"{words[0]!r} is not a command{_near(words[0])}")
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.error("the following arguments are required: COMMAND")
    try:
        return int(options.run(options))
    except Error as error:
        if getattr(options, "debug", False):
            sys.stderr.write(getattr(error, "log", "") + "\n")
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _near(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _seal() -> None:
    """Seals the interpreter, which restarts it, before other work. On failure the command reports it."""
    from ringfence_runtime.seal import ensure_sealed

    try:
        ensure_sealed()
    except OSError:
        pass
