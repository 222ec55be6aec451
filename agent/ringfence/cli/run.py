# SPDX-License-Identifier: Apache-2.0
"""`ringfence run`: a fenced sandbox from an image, a directory or the host's own root."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ringfence.cli.parser import Commands, add_command
from ringfence.cli.run_options import add_options, add_roots


def register(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "run",
        run,
        text="Run a program in a new fenced sandbox: Docker's fourteen capabilities, no new privileges,\n"
        "Landlock, seccomp, masked paths, at most 2048 tasks, and no network by default. IMAGE is the\n"
        "name of an image in the store (ringfence image import), an OCI layout or archive\n"
        "(./PATH[:TAG]), a WebAssembly module (./FILE.wasm), or a directory (./DIR). Options must\n"
        "precede IMAGE.\n\n"
        "The exit code is the program's; 125: could not be started, 126: cannot be executed,\n"
        "127: not found. A foreground sandbox is removed when it exits, unless --keep is given.",
        examples=(
            "ringfence run alpine echo hello\n"
            "ringfence run -it --memory 512m --cpus 1 alpine\n"
            "ringfence run --rootfs host --workdir /usr make --version\n"
            "ringfence run -d --name web -p 8080:80 ./nginx-layout\n"
            "ringfence run --read-only --tmpfs /tmp -v ./data:/data:ro alpine ls /data"
        ),
    )
    add_options(parser)
    add_roots(parser)


def run(options: Any) -> int:
    """Starts the sandbox, and waits for its end unless --detach."""
    from ringfence.cli.run_options import request_of
    from ringfence.sandbox.agent_socket import follow_commands
    from ringfence.sandbox.start import run as start

    follow_commands()
    if options.learn or options.verify:
        return _watched(options)
    return start(request_of(options), announce, _silent if options.quiet else warn)


def _watched(options: Any) -> int:
    """Handles --learn and --verify."""
    from ringfence.cli.client import request, subscribe
    from ringfence.cli.run_options import request_of
    from ringfence.errors import Error
    from ringfence.learning import session

    if options.learn and options.verify:
        raise Error("--learn and --verify need two runs", hint="first --learn DIR ..., then --verify DIR")
    if options.learn:
        directory = Path(options.learn).absolute()
        words = _words_without(sys.argv[1:], "--learn")
        return session.learn(request_of(options), directory, words, request, subscribe, warn)
    directory = Path(options.verify).absolute()
    words, where = session.command_of(directory)
    if not options.words and options.rootfs is None:
        from ringfence.cli.main import build_parser

        os.chdir(where)
        options = build_parser().parse_args(words)
    return session.verify(request_of(options), directory, request, subscribe, warn)


def _words_without(words: list[str], option: str) -> list[str]:
    """Returns the command line without an option and its value."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip or (word.startswith(f"{option}=")):
            skip = False
        elif word == option and option not in kept:
            skip = True
        else:
            kept.append(word)
    return kept


def announce(name: str) -> None:
    """Prints the name of a detached sandbox."""
    sys.stdout.write(f"{name}\n")
    sys.stdout.flush()


def _silent(text: str) -> None:
    """Prints no warning."""


def warn(text: str) -> None:
    """Prints a warning to standard error."""
    sys.stderr.write(f"ringfence: warning: {text}\n")
