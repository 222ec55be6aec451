# SPDX-License-Identifier: Apache-2.0
"""The help text."""

from __future__ import annotations

from ringfence_runtime import OCI_VERSION, __version__

__all__ = ["of_command", "overview"]

_WHAT = {
    "create": "create a container from a bundle, without starting its workload",
    "start": "start the workload of a created container",
    "run": "create and start a container, and wait for its end unless --detach",
    "exec": "run another process in a running container",
    "state": "print the state of a container as JSON",
    "list": "list the containers below --root",
    "ps": "list the processes of a container",
    "kill": "send a signal to a container's first process (TERM)",
    "delete": "remove a stopped container; --force kills a running one",
    "pause": "freeze all processes of a container",
    "resume": "resume a paused container",
    "update": "change the limits of a container",
    "events": "print statistics and out-of-memory events of a container; --stats prints once",
    "spec": "write a template config.json",
    "features": "print the features of this runtime, as JSON",
    "launcher": "serve foreground run and exec from a warm process",
    "install": "write a fast-starting executable of this runtime to a path",
}


def overview(commands: list[str]) -> str:
    """Returns the general help."""
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
        "  --root DIR          directory of the containers' states (/run/ringfence/runtime)",
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
    "install": "PATH [--launcher SOCKET] [--no-compile] [--no-init] [--no-fallback]"
    " [--wasm LIBRARY] [--wasm-cache DIRECTORY]",
    "launcher": "[--socket PATH]",
}


_START = (
    ("-b, --bundle DIR", "the bundle (the current directory)"),
    ("-f, --config FILE", "its configuration (config.json)"),
    ("--console-socket SOCKET", "socket that receives the terminal"),
    ("--pid-file FILE", "file for the pid of the first process"),
    ("--pidfd-socket SOCKET", "socket that receives its pidfd"),
    ("--preserve-fds N", "pass N more descriptors to the workload"),
    ("--no-pivot", "for a root on a ramfs; weaker"),
    ("--no-new-keyring", "keep the session keyring of the caller"),
    ("--policy NAME|FILE", "an additional policy of the agent, or one for this container only"),
    ("--require-agent", "fail if no agent answers"),
    ("--certain", "the bundle has all facts about the container; no engine has more"),
    ("--userns auto|host", "auto: a private range of 65,536 ids"),
)
#: the options of each command, without those that are accepted and ignored (as crun's --no-subreaper)
OPTIONS: dict[str, tuple[tuple[str, str], ...]] = {
    "create": _START,
    "run": (*_START, ("-d, --detach", "do not wait for its end"), ("--keep", "keep it after its end")),
    "exec": (
        ("-t, --tty", "a terminal"),
        ("-e, --env NAME=VALUE", "an environment variable; repeatable"),
        ("--cwd DIR", "the working directory"),
        ("-u, --user UID[:GID]", "its user"),
        ("-g, --additional-gids GID", "an additional group; repeatable"),
        ("-c, --cap CAPABILITY", "an additional capability; repeatable"),
        ("-p, --process FILE", "the whole process, as JSON"),
        ("-d, --detach", "do not wait for its end"),
        ("--console-socket SOCKET", "socket that receives the terminal"),
        ("--pid-file FILE", "file for the pid of the process"),
        ("--pidfd-socket SOCKET", "socket that receives its pidfd"),
        ("--preserve-fds N", "pass N more descriptors to it"),
        ("--process-label LABEL", "its SELinux label"),
        ("--apparmor PROFILE", "its AppArmor profile"),
        ("--no-new-privs", "no new privileges"),
        ("--cgroup PATH", "a cgroup below the container's"),
        ("--ignore-paused", "also in a paused container"),
    ),
    "kill": (("-a, --all", "all processes of the container"), ("-r, --regex", "ID is a pattern")),
    "delete": (("-f, --force", "kill it first"), ("--regex", "ID is a pattern")),
    "list": (("-f, --format FORMAT", "table or json"), ("-q, --quiet", "names only")),
    "ps": (("-f, --format FORMAT", "table or json"),),
    "events": (("--stats", "print once"), ("--interval DURATION", "between prints (5s)")),
    "spec": (("-b, --bundle DIR", "directory to write it to"), ("--rootless", "for an unprivileged user")),
    "update": (
        ("-r, --resources FILE", "limits as JSON, - for standard input"),
        ("--memory, --memory-reservation, --memory-swap SIZE", "512m, or bytes"),
        ("--kernel-memory, --kernel-memory-tcp SIZE", "ignored: no current kernel has it"),
        ("--cpu-period, --cpu-quota, --cpu-burst, --cpu-share, --cpu-idle N", ""),
        ("--cpu-rt-period, --cpu-rt-runtime N", ""),
        ("--cpuset-cpus, --cpuset-mems LIST", ""),
        ("--blkio-weight, --pids-limit N", ""),
    ),
}


def of_command(command: str) -> str:
    """Returns the help of one command."""
    takes = OPTIONS.get(command, ())
    words = ["usage: ringfence-runtime", command, "[options]" if takes else "", _ARGUMENTS.get(command, "ID")]
    lines = [" ".join(filter(None, words)), "", f"  {_WHAT[command]}"]
    lines += ["", "options:"] if takes else []
    return "\n".join([*lines, *(f"  {option:<28} {what}".rstrip() for option, what in takes)])
