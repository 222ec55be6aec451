# SPDX-License-Identifier: Apache-2.0
"""`ringfence-runtime`: runc's command line. The only place that prints an error or chooses an exit code.

A command's module is imported when the command is used, so that `run` does not pay for `events`.
"""

from __future__ import annotations

import sys

from ringfence_runtime import OCI_VERSION, __version__, log
from ringfence_runtime.cli.errors import report
from ringfence_runtime.cli.options import Globals, parse_globals
from ringfence_runtime.errors import Error, UsageError
from ringfence_runtime.inherited import mend_inherited

__all__ = ["main"]

# command -> (module, function). The order is that of the help.
COMMANDS = {
    "create": ("lifecycle", "create"),
    "start": ("lifecycle", "start"),
    "run": ("lifecycle", "run"),
    "exec": ("execute", "execute"),
    "state": ("query", "state"),
    "list": ("query", "list_containers"),
    "ps": ("query", "ps"),
    "kill": ("control", "kill"),
    "delete": ("control", "delete"),
    "pause": ("control", "pause"),
    "resume": ("control", "resume"),
    "update": ("update", "update"),
    "events": ("events", "events"),
    "spec": ("describe", "spec"),
    "features": ("describe", "features"),
    "launcher": ("launcher", "launcher"),
    "install": ("install", "install"),
}
_GUARDED = frozenset(("create", "run", "exec", "launcher"))


def _help() -> str:
    from ringfence_runtime.cli.usage import overview

    return overview(list(COMMANDS))


def _dispatch(settings: Globals, command: str, arguments: list[str]) -> int:
    entry = COMMANDS.get(command)
    if entry is None:
        if command in ("checkpoint", "restore"):
            raise UsageError(
                f"{command} is not supported", hint="this runtime does not implement checkpoint/restore"
            )
        raise UsageError(f"unknown command {command!r}", hint="ringfence-runtime --help lists them")
    if arguments[:1] in (["--help"], ["-h"]):
        from ringfence_runtime.cli.usage import of_command

        print(of_command(command))
        return 0
    if command in _GUARDED:
        from ringfence_runtime.seal import ensure_sealed

        ensure_sealed()
    module = __import__(f"ringfence_runtime.cli.{entry[0]}", fromlist=[entry[1]])
    result: int = getattr(module, entry[1])(settings, arguments)
    return result


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit code. Errors become one line and a hint."""
    mend_inherited()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        settings, rest = parse_globals(arguments)
        log.configure(settings.log, form=settings.log_format, level=settings.log_level)
        if settings.version:
            print(f"ringfence-runtime version {__version__}\nspec: {OCI_VERSION}")
            return 0
        if settings.help or not rest:
            print(_help())
            return 0 if settings.help else 1
        return _dispatch(settings, rest[0], rest[1:])
    except (Error, OSError) as error:
        return report(error)
    except KeyboardInterrupt:
        return 130
