# SPDX-License-Identifier: Apache-2.0
"""exec: one more process in a running container."""

from __future__ import annotations

from ringfence_linux.capabilities import CAPABILITIES
from ringfence_runtime.cli.errors import described
from ringfence_runtime.cli.lifecycle import absolute, reserve
from ringfence_runtime.cli.options import Globals, Parsed, expect, parse
from ringfence_runtime.errors import Error, SpecError, StateError, UsageError
from ringfence_runtime.launch.plan import Options
from ringfence_runtime.security.caps import default_sets
from ringfence_runtime.spec import parse_process_file
from ringfence_runtime.spec.node import U32, choice
from ringfence_runtime.state import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.spec import Config
    from ringfence_runtime.spec.process import Process

__all__ = ["execute"]

_OPTIONS = {
    "console-socket": "s",
    "cwd": "s",
    "env": "s",
    "e": "=env",
    "tty": "f",
    "t": "=tty",
    "user": "s",
    "u": "=user",
    "additional-gids": "s",
    "g": "=additional-gids",
    "process": "s",
    "p": "=process",
    "detach": "f",
    "d": "=detach",
    "pid-file": "s",
    "process-label": "s",
    "apparmor": "s",
    "no-new-privs": "f",
    "cap": "s",
    "c": "=cap",
    "preserve-fds": "s",
    "cgroup": "s",
    "ignore-paused": "f",
    "no-subreaper": "f",
    "pidfd-socket": "s",
}


#: of an `exec` that failed, for callers that must not take its error for the result of the process
FAILED = 255


def execute(settings: Globals, arguments: list[str]) -> int:
    """Runs the process; returns its exit code, or 0 with --detach.

    Errors have the exit code FAILED, as with runc, except those of the command line.
    """
    parsed = parse(arguments, _OPTIONS)
    words = expect(parsed, "exec", 1)
    try:
        return _execute(settings, parsed, words)
    except OSError as error:
        failure = Error(described(error))
        failure.exit_code = FAILED
        raise failure from error
    except Error as error:
        error.exit_code = FAILED
        raise


def _execute(settings: Globals, parsed: Parsed, words: list[str]) -> int:
    container = Store(settings.root).load(words[0])
    status = container.status()
    if status == "paused" and not parsed.flag("ignore-paused"):
        raise StateError(f"container {container.id} is paused", hint="resume it, or use --ignore-paused")
    if status not in ("running", "paused", "created"):
        raise StateError(f"cannot exec in container {container.id}: it is {status}")
    config = container.config()
    if parsed.text("process"):
        process = parse_process_file(parsed.text("process"))
        process.warn()
        if process.capabilities is None and config.process is not None:
            process.capabilities = config.process.capabilities
    else:
        process = _from_options(parsed, words[1:], config)
    if not process.args:
        raise UsageError("exec: nothing to execute")
    options = Options()
    options.console_socket = absolute(parsed.text("console-socket"))
    options.pid_file = absolute(parsed.text("pid-file"))
    options.pidfd_socket = absolute(parsed.text("pidfd-socket"))
    options.preserve_fds = parsed.number("preserve-fds")
    reserve(options)
    detach = parsed.flag("detach")
    if detach and process.terminal and not options.console_socket:
        raise Error("a detached process with a terminal needs --console-socket")
    from ringfence_runtime.launch.join import Joined

    joined = Joined(container, config, process, options, _sub_cgroup(parsed))
    joined.foreground = not detach
    pid, pidfd = joined.start()
    if detach:
        return 0
    from ringfence_runtime.launch.relay import wait_for

    return wait_for(pid, pidfd, options.terminal)


def _sub_cgroup(parsed: Parsed) -> str:
    """Reads `--cgroup PATH`, relative to the container's; of runc's form `controller:path` only the path."""
    path = parsed.text("cgroup").rpartition(":")[2]
    if ".." in path.split("/"):
        raise UsageError(f"--cgroup: {path!r}: `..` components are not allowed")
    return path.strip("/")


def _from_options(parsed: Parsed, words: list[str], config: Config) -> Process:
    """Returns the container's own process, modified by the options."""
    process = config.process
    if process is None:
        raise SpecError("process", "the container has none; use --process")
    process.args = tuple(words)
    process.terminal = parsed.flag("tty")
    process.console_size = None
    process.env = (*process.env, *(_variable(text) for text in parsed.texts("env")))
    if parsed.text("cwd"):
        process.cwd = parsed.text("cwd")
        if not process.cwd.startswith("/"):
            raise UsageError(f"--cwd: {process.cwd!r} must be an absolute path")
    if parsed.text("user"):
        user, _, group = parsed.text("user").partition(":")
        if not _is_id(user) or (group and not _is_id(group)):
            raise UsageError(f"--user: {parsed.text('user')!r} is not UID or UID:GID")
        process.user.uid, process.user.gid = int(user), int(group or process.user.gid)
        process.user.groups = ()  # they belong to the container's user
    if parsed.texts("additional-gids"):
        process.user.groups = (*process.user.groups, *_gids(parsed.texts("additional-gids")))
    if parsed.flag("no-new-privs"):
        process.no_new_privs = True
    process.selinux = parsed.text("process-label") or process.selinux
    process.apparmor = parsed.text("apparmor") or process.apparmor
    _add_capabilities(process, parsed.texts("cap"))
    return process


def _variable(text: str) -> str:
    if text.find("=") < 1:
        raise UsageError(f"--env: {text!r} is not NAME=value")
    return text


def _is_id(text: str) -> bool:
    """Reads a user's or group's number. 2^32 - 1 means "unchanged" to setresuid(2), which would be root."""
    return text.isascii() and text.isdecimal() and len(text) < 11 and int(text) < U32


def _gids(values: list[str]) -> list[int]:
    words = [word for value in values for word in value.split(",")]
    if not all(_is_id(word) for word in words):
        raise UsageError(f"--additional-gids: {','.join(words)!r} is not a list of numbers")
    return [int(word) for word in words]


def _add_capabilities(process: Process, names: list[str]) -> None:
    if not names:
        return
    mask = 0
    for name in names:
        full = name.upper() if name.upper().startswith("CAP_") else f"CAP_{name.upper()}"
        mask |= 1 << CAPABILITIES[choice("--cap", full, CAPABILITIES)]
    sets = process.capabilities or default_sets(process.user.uid)
    # Ambient requires inheritable, which otherwise matters only for files with capabilities. Root needs
    # neither, unless the container uses them.
    added: tuple[str, ...] = ("bounding", "effective", "permitted")
    if process.user.uid or sets["inheritable"]:
        added += ("inheritable", "ambient")
    process.capabilities = {name: value | (mask if name in added else 0) for name, value in sets.items()}
