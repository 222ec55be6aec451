# SPDX-License-Identifier: Apache-2.0
"""`ringfence`: find the command, run it, turn what goes wrong into two lines and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ringfence.cli import (
    agent,
    completion,
    events,
    image,
    policy,
    probe,
    run,
    sandboxes,
    status,
    top,
    tree,
    version,
)
from ringfence.cli.output import print_error
from ringfence.cli.parser import Parser, new_parser
from ringfence.errors import Error

__all__ = ["build_parser", "main"]

_COMMANDS = (agent, status, events, top, tree, policy, probe, run, sandboxes, image, completion, version)


def build_parser() -> Parser:
    """The whole command line. Cheap: commands import what they need when they run."""
    parser, commands = new_parser()
    for command in _COMMANDS:
        command.register(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see `ringfence --help`)."""
    # Observed text is escaped, but a terminal may still lack a letter of it.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    options = build_parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
    except Error as error:
        if getattr(options, "debug", False):
            sys.stderr.write(getattr(error, "log", "") + "\n")
        print_error(error)
        return error.exit_code
    except BrokenPipeError:
        # `ringfence events | head`: the reader has what it wanted. The interpreter flushes once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except KeyboardInterrupt:
        return 130
    return code
