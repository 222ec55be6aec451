# SPDX-License-Identifier: Apache-2.0
"""`ringfence`: selects the command, runs it, and turns an Error into two lines and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ringfence.cli.output import print_error
from ringfence.cli.parser import Parser, new_parser
from ringfence.errors import Error

__all__ = ["build_parser", "main"]

# command -> its module in ringfence.cli, in the order of the help
_COMMANDS = {
    "agent": "agent",
    "init": "init",
    "doctor": "doctor",
    "config": "config",
    "status": "status",
    "events": "events",
    "top": "top",
    "tree": "tree",
    "policy": "policy",
    "probe": "probe",
    "audit": "audit",
    "attest": "attest",
    "run": "run",
    "ps": "sandboxes",
    "exec": "sandboxes",
    "logs": "sandboxes",
    "stop": "sandboxes",
    "rm": "sandboxes",
    "image": "image",
    "completion": "completion",
    "version": "version",
}
_SEALED = frozenset(("run", "exec"))  # commands that start a workload: run from a sealed interpreter


def build_parser(only: str = "") -> Parser:
    """Returns the parser of all commands, or of the command `only`."""
    parser, commands = new_parser()
    for name in [_COMMANDS[only]] if only else dict.fromkeys(_COMMANDS.values()):
        import_module(f"ringfence.cli.{name}").register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code (see `ringfence --help`)."""
    # Observed text is escaped, but the terminal's encoding may still lack a character.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    only = words[0] if words and words[0] in _COMMANDS else ""
    if only in _SEALED and arguments is None:
        _seal()
    if words in ([], ["help"]):
        build_parser().print_help()
        return 0
    parser = build_parser(only)
    if not only and not words[0].startswith("-"):
        parser.error(f"{words[0]!r} is not a command{_near(words[0])}")
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.error("the following arguments are required: COMMAND")
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except Error as error:
        if getattr(options, "debug", False):
            sys.stderr.write(getattr(error, "log", "") + "\n")
        print_error(error)
        return error.exit_code
    except BrokenPipeError:
        # `ringfence events | head`: not an error. The interpreter flushes standard output again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    return code


def _near(word: str) -> str:
    import difflib

    near = difflib.get_close_matches(word, _COMMANDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _seal() -> None:
    """Seals the interpreter, which restarts it, before other work. On failure the command reports it."""
    from ringfence_runtime.seal import ensure_sealed

    try:
        ensure_sealed()
    except OSError:
        pass
