# SPDX-License-Identifier: Apache-2.0
"""The help text."""

from __future__ import annotations

from ringfence_runtime import OCI_VERSION, __version__

__all__ = ["of_command", "overview"]

_WHAT = {
    "create": "make a container from a bundle, up to the moment before its workload",
    "start": "start the workload of a created container",
    "run": "create and start, and wait for its end unless --detach",
    "exec": "run another process in a running container",
    "state": "print the state of a container as JSON",
    "list": "list the containers below --root",
    "ps": "list the processes of a container",
    "kill": "send a signal to a container's first process (TERM)",
    "delete": "remove a stopped container; --force ends a running one",
    "pause": "freeze all processes of a container",
    "resume": "let a paused container go on",
    "update": "change the limits of a container",
    "events": "print figures and out-of-memory events of a container; --stats prints once",
    "spec": "write a config.json to begin with",
    "features": "print what this runtime can do, as JSON",
    "launcher": "serve foreground run and exec from a warm process",
    "install": "write a quick-starting executable of this runtime to a path",
}


def overview(commands: list[str]) -> str:
    """The help of the whole."""
    lines = [
        f"ringfence-runtime {__version__}: an OCI runtime (specification {OCI_VERSION})",
        "",
        "usage: ringfence-runtime [options] COMMAND [arguments]",
        "",
        "commands:",
    ]
    lines += [f"  {name:<10} {_WHAT[name]}" for name in commands]
    lines += [
        "",
        "options:",
        "  --root DIR          where states are kept (/run/ringfence/runtime)",
        "  --log FILE          append messages to a file",
        "  --log-format F      text or json",
        "  --log-level L       debug, info, warning or error",
        "  --debug             print each step of a launch",
        "  --version, --help",
    ]
    return "\n".join(lines)


_ARGUMENTS = {
    "list": "",
    "spec": "",
    "features": "",
    "exec": "ID PROGRAM [ARGUMENT...]",
    "kill": "ID [SIGNAL]",
    "ps": "ID [PS OPTION...]",
    "delete": "ID...",
    "install": "PATH [--launcher SOCKET] [--no-compile] [--no-init]",
    "launcher": "[--socket PATH]",
}


def of_command(command: str) -> str:
    """The help of one command."""
    return (
        f"usage: ringfence-runtime {command} [options] {_ARGUMENTS.get(command, 'ID')}\n\n  {_WHAT[command]}"
    )
