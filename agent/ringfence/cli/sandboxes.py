# SPDX-License-Identifier: Apache-2.0
"""`ringfence ps`, `stop`, `rm`, `exec` and `logs`: manage the sandboxes of `ringfence run`."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from ringfence.cli.output import age, print_document, room, table
from ringfence.cli.parser import DOCUMENTS, Commands, Parser, add_command, add_output
from ringfence.cli.run_options import add_roots, roots_of


def register(commands: Commands) -> None:
    """Add the commands."""
    _register_ps(commands)
    _register_exec(commands)
    _register_logs(commands)
    _register_ends(commands)


def _register_ps(commands: Commands) -> None:
    ps = add_command(
        commands,
        "ps",
        show,
        text="List the sandboxes of `ringfence run`.",
        examples="ringfence ps\nringfence ps --all -o json",
    )
    ps.add_argument("-a", "--all", action="store_true", help="include stopped sandboxes")
    add_output(ps)
    add_roots(ps)


def _register_exec(commands: Commands) -> None:
    execute = add_command(
        commands,
        "exec",
        run_in,
        text="Run another program in a running sandbox, as its user and with its fences except Landlock.\n"
        "The exit code is the program's; 125: could not be started, 126 and 127: as for `run`.",
        examples="ringfence exec web ps\nringfence exec -it web /bin/sh\nringfence exec -u 0 -w /etc web ls",
    )
    execute.add_argument("name", metavar="NAME")
    execute.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND...")
    execute.add_argument("-i", "--interactive", action="store_true", help="keep standard input open")
    execute.add_argument("-t", "--tty", action="store_true", help="allocate a terminal")
    execute.add_argument("-d", "--detach", action="store_true", help="run in the background")
    execute.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME=VALUE",
        help="environment variable; repeatable",
    )  # fmt: skip
    execute.add_argument(
        "-w", "--workdir", default="", metavar="PATH", help="working directory (default: the sandbox's)"
    )
    execute.add_argument(
        "-u",
        "--user",
        default="",
        metavar="USER[:GROUP]",
        help="user, by name or number (default: the sandbox's)",
    )
    add_roots(execute)


def _register_logs(commands: Commands) -> None:
    logs = add_command(
        commands,
        "logs",
        print_output,
        text="Show what a detached sandbox wrote to standard output and standard error.",
        examples="ringfence logs web\nringfence logs --follow --tail 20 web",
    )
    logs.add_argument("name", metavar="NAME")
    logs.add_argument(
        "-f", "--follow", action="store_true", help="keep printing new output until the sandbox exits"
    )
    logs.add_argument("-n", "--tail", type=_lines, metavar="N", help="only the last N lines (default: all)")
    add_roots(logs)


def _lines(text: str) -> int | None:
    """Returns a number of lines; None for docker's word for all."""
    if text == "all":
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of lines")
    return int(text)


def _register_ends(commands: Commands) -> None:
    stop = add_command(
        commands,
        "stop",
        stop_all,
        text="Send the stop signal to sandboxes, then SIGKILL after the grace period.",
        examples="ringfence stop web\nringfence stop --time 1 web db",
    )
    _add_names(stop)
    stop.add_argument(
        "-t",
        "--time",
        type=float,
        metavar="SECONDS",
        help="grace period in seconds (default: that of `run`, else 10)",
    )
    stop.add_argument(
        "-s", "--signal", default="", metavar="SIGNAL", help="stop signal (default: the image's, or TERM)"
    )
    remove = add_command(
        commands,
        "rm",
        remove_all,
        text="Remove stopped sandboxes and their layers; --force stops running ones first.",
        examples="ringfence rm web\nringfence rm --force web db",
    )
    _add_names(remove)
    remove.add_argument("-f", "--force", action="store_true", help="stop and remove running sandboxes, too")


def _add_names(parser: Parser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME")
    add_roots(parser)


def show(options: Any) -> int:
    """Prints one line per sandbox."""
    from ringfence.sandbox import remove
    from ringfence.sandbox.errors import translated
    from ringfence.sandbox.place import places

    roots = roots_of(options)
    with translated(1):
        remove.sweep(roots)
        rows = [{**place.record, "status": place.status()} for place in places(roots)]
    rows = [row for row in rows if options.all or row["status"] != "stopped"]
    if options.output in DOCUMENTS:
        print_document(rows, options.output)
        return 0
    now = time.time()
    lines = [
        (
            row["name"],
            row["status"],
            age(now - row["created"]),
            str(row.get("image", "")),
            str(row.get("network", "")),
            " ".join(row.get("ports", ())),
            " ".join(map(ascii, row.get("command", ()))).replace("'", ""),
        )
        for row in rows
    ]
    heads = ("NAME", "STATUS", "AGE", "IMAGE", "NETWORK", "PORTS", "COMMAND")
    print("\n".join(table(heads, lines, limit=room(options))))
    return 0


def run_in(options: Any) -> int:
    """Runs the program and returns its exit code."""
    from ringfence.sandbox.errors import UsageError
    from ringfence.sandbox.execute import Inner, execute

    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        raise UsageError("no command given", hint="ringfence exec NAME COMMAND...")
    inner = Inner(
        command=tuple(words), environment=tuple(options.env), workdir=options.workdir, user=options.user,
        tty=options.tty, interactive=options.interactive, detach=options.detach,
    )  # fmt: skip
    return execute(roots_of(options), options.name, inner)


def print_output(options: Any) -> int:
    """Prints the sandbox's output unchanged: escape sequences of the program are passed through."""
    from ringfence.sandbox.errors import translated
    from ringfence.sandbox.output import follow

    with translated(1):
        for part in follow(roots_of(options), options.name, on=options.follow, tail=options.tail):
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
    return 0


def stop_all(options: Any) -> int:
    """Stops sandboxes and prints the names of those that were running."""
    from ringfence.sandbox import remove
    from ringfence.sandbox.errors import translated
    from ringfence.sandbox.place import find

    roots = roots_of(options)
    with translated(1):
        for name in options.names:
            if remove.stop(find(roots, name), signal=options.signal, seconds=options.time):
                print(name)
        remove.sweep(roots)
    return 0


def remove_all(options: Any) -> int:
    """Removes sandboxes and prints their names."""
    from ringfence.sandbox import remove
    from ringfence.sandbox.errors import translated
    from ringfence.sandbox.place import find

    roots = roots_of(options)
    with translated(1):
        for name in options.names:
            remove.remove(find(roots, name), force=options.force)
            print(name)
    return 0
