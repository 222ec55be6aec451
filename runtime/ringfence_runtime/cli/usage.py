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
    "install": "PATH [--launcher SOCKET] [--no-compile] [--no-init] [--no-fallback]",
    "launcher": "[--socket PATH]",
}


_START = (
    ("-b, --bundle DIR", "the bundle (the current directory)"),
    ("-f, --config FILE", "its configuration (config.json)"),
    ("--console-socket SOCKET", "who takes the terminal"),
    ("--pid-file FILE", "where the first process is written"),
    ("--pidfd-socket SOCKET", "who gets a pidfd of it"),
    ("--preserve-fds N", "hand N more descriptors to the workload"),
    ("--no-pivot", "for a root on a ramfs; weaker"),
    ("--no-new-keyring", "keep the session keyring of the caller"),
    ("--policy NAME|FILE", "one more policy of the agent, or one for this container alone"),
    ("--require-agent", "start nothing where no agent answers"),
    ("--certain", "no engine knows more of the container than its bundle"),
    ("--userns auto|host", "auto: 65,536 ids of its own"),
)
#: what each command takes; one that is understood and does nothing (as crun's --no-subreaper) is left out
OPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "create": _START,
    "run": (*_START, ("-d, --detach", "do not wait for its end"), ("--keep", "keep it when it has ended")),
    "exec": (
        ("-t, --tty", "a terminal"),
        ("-e, --env NAME=VALUE", "a variable; repeatable"),
        ("--cwd DIR", "the working directory"),
        ("-u, --user UID[:GID]", "its user"),
        ("-g, --additional-gids GID", "one more group; repeatable"),
        ("-c, --cap CAPABILITY", "one more capability; repeatable"),
        ("-p, --process FILE", "all of the process, as JSON"),
        ("-d, --detach", "do not wait for its end"),
        ("--console-socket SOCKET", "who takes the terminal"),
        ("--pid-file FILE", "where the process is written"),
        ("--pidfd-socket SOCKET", "who gets a pidfd of it"),
        ("--preserve-fds N", "hand N more descriptors to it"),
        ("--process-label LABEL", "its SELinux label"),
        ("--apparmor PROFILE", "its AppArmor profile"),
        ("--no-new-privs", "no new privileges"),
        ("--cgroup PATH", "a cgroup below the container's"),
        ("--ignore-paused", "also in a paused container"),
    ),
    "kill": (("-a, --all", "all processes of the container"), ("-r, --regex", "ID is a pattern")),
    "delete": (("-f, --force", "end it first"), ("--regex", "ID is a pattern")),
    "list": (("-f, --format FORMAT", "table or json"), ("-q, --quiet", "names alone")),
    "ps": (("-f, --format FORMAT", "table or json"),),
    "events": (("--stats", "print once"), ("--interval DURATION", "between prints (5s)")),
    "spec": (("-b, --bundle DIR", "where to write it"), ("--rootless", "for who is not root")),
    "update": (
        ("-r, --resources FILE", "limits as JSON, - for standard input"),
        ("--memory, --memory-reservation, --memory-swap SIZE", "512m, or bytes"),
        ("--kernel-memory, --kernel-memory-tcp SIZE", "which no kernel has any more"),
        ("--cpu-period, --cpu-quota, --cpu-burst, --cpu-share, --cpu-idle N", ""),
        ("--cpu-rt-period, --cpu-rt-runtime N", ""),
        ("--cpuset-cpus, --cpuset-mems LIST", ""),
        ("--blkio-weight, --pids-limit N", ""),
    ),
}


def of_command(command: str) -> str:
    """The help of one command."""
    takes = OPTIONS.get(command, ())
    words = ["usage: ringfence-runtime", command, "[options]" if takes else "", _ARGUMENTS.get(command, "ID")]
    lines = [" ".join(filter(None, words)), "", f"  {_WHAT[command]}"]
    lines += ["", "options:"] if takes else []
    return "\n".join([*lines, *(f"  {option:<28} {what}".rstrip() for option, what in takes)])
