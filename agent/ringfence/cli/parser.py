# SPDX-License-Identifier: Apache-2.0
"""argparse, set up the same way for every command: examples and exit codes in the help, short errors."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ringfence import __version__
from ringfence.cli.commands import COMMANDS
from ringfence.places import DEFAULT_SOCKET

__all__ = [
    "DOCUMENTS",
    "EXIT_CODES",
    "FORMATS",
    "Commands",
    "Parser",
    "add_command",
    "add_output",
    "add_socket",
    "finish",
    "new_parser",
]

EXIT_CODES = """\
exit codes:
  0  success, nothing found
  1  findings, or a failed check
  2  usage error, or an invalid file
  3  this kernel lacks a required feature
  4  not permitted (most commands need root)
  5  another agent is running on this node
  6  the agent does not respond"""

DOCUMENTS = ("json", "yaml")
_RAW = ("examples:", "exit codes:")
FORMATS = ("table", "wide", *DOCUMENTS)
Commands = Any  # argparse's action that holds the subcommands; its type is private


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows options as Python 3.13 does (`-c, --container C`): docs/reference/cli.md must not depend on it.

    Descriptions are wrapped to the terminal; examples and exit codes stay as they are.
    """

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_RAW):
            return super()._fill_text(text, width, indent)
        return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class Parser(argparse.ArgumentParser):
    """Reports usage errors in the format of all other errors."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"ringfence: error: {message}\nhint: see `{self.prog} --help`\n")
        sys.exit(2)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does it, but an unknown option is reported by the command it was given to."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            getattr(options, "parser", self).unknown_option(unknown[0])
        return options

    def unknown_option(self, word: str) -> NoReturn:
        """Reports an argument that this command does not take, with a similar one."""
        import difflib

        given = word.partition("=")[0]
        near = difflib.get_close_matches(given, self._option_string_actions, n=1) if given[:1] == "-" else []
        what = "option" if near or given[:1] == "-" else "argument"
        self.error(f"unknown {what} {word!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def new_parser() -> tuple[Parser, Commands]:
    """Returns the program's parser, and the action to which commands are added."""
    parser = Parser(
        prog="ringfence",
        description="Observe what containers do to the kernel they share, and stop container escapes there.",
        epilog=EXIT_CODES,
        formatter_class=Formatter,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"ringfence {__version__}", help="print the version"
    )
    return parser, parser.add_subparsers(
        title="commands", metavar="COMMAND", required=False, parser_class=Parser
    )


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[Any], int],
    *,
    text: str,
    examples: str,
    help: str = "",
) -> Parser:
    """Adds a command: `text` is its description, and `examples` end its help.

    `help` is the line of a subcommand in the list; that of a command is in COMMANDS.
    """
    parser: Parser = commands.add_parser(name, help=help or COMMANDS[name].help, description=text)
    finish(parser, examples)
    parser.set_defaults(run=run, parser=parser)
    return parser


def finish(parser: argparse.ArgumentParser, examples: str) -> None:
    """Ends the help of a command with examples and exit codes, in the form of all commands."""
    indented = "\n".join("  " + line for line in examples.strip().splitlines())
    parser.epilog = f"examples:\n{indented}\n\n{EXIT_CODES}"
    parser.formatter_class = Formatter


def add_socket(parser: argparse.ArgumentParser) -> None:
    """Adds `--socket`, for commands that query the running agent."""
    parser.add_argument(
        "--socket", type=Path, metavar="PATH", help=f"the agent's socket (default: {DEFAULT_SOCKET})"
    )


def add_output(parser: argparse.ArgumentParser, *more: str) -> None:
    """Adds `-o`: the formats that all commands have, and `more`."""
    parser.add_argument(
        "-o", "--output", choices=(*FORMATS, *more), default=FORMATS[0],
        help="table: fits the terminal (default); wide: nothing is cut; json, yaml: all there is",
    )  # fmt: skip
