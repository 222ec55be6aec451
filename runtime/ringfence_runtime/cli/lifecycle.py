# SPDX-License-Identifier: Apache-2.0
"""create, start and run."""

from __future__ import annotations

import os

from ringfence_runtime.cli.options import Globals, Parsed, expect, parse
from ringfence_runtime.errors import Error, UsageError
from ringfence_runtime.launch import ending, parent
from ringfence_runtime.launch.plan import Options
from ringfence_runtime.launch.relay import forward_signals, wait_for
from ringfence_runtime.state import Store

__all__ = ["Run", "absolute", "create", "parse_run", "reserve", "run", "start"]

_CREATE = {
    "bundle": "s",
    "b": "=bundle",
    "config": "s",
    "f": "=config",
    "console-socket": "s",
    "pid-file": "s",
    "pidfd-socket": "s",
    "no-pivot": "f",
    "no-new-keyring": "f",
    "preserve-fds": "s",
    "policy": "s",
    "require-agent": "f",
    "certain": "f",
    "userns": "s",
}
_RUN = {**_CREATE, "detach": "f", "d": "=detach", "keep": "f", "no-subreaper": "f"}


def absolute(path: str) -> str:
    """Returns the absolute path; empty stays empty."""
    return os.path.abspath(path) if path else ""


def _request(parsed: Parsed) -> tuple[str, str, Options]:
    """Returns (bundle, configuration, options) with absolute paths: the process changes directories later."""
    bundle = os.path.realpath(parsed.text("bundle") or ".")
    if not os.path.isdir(bundle):
        raise Error(f"the bundle {bundle} is not a directory")
    config = parsed.text("config")
    config = config if not config or config.startswith("/") else os.path.join(bundle, config)
    options = Options()
    options.console_socket = absolute(parsed.text("console-socket"))
    options.pid_file = absolute(parsed.text("pid-file"))
    options.pidfd_socket = absolute(parsed.text("pidfd-socket"))
    options.no_pivot = parsed.flag("no-pivot")
    options.keep_keyring = parsed.flag("no-new-keyring")
    options.policy = parsed.text("policy")
    options.require_agent = parsed.flag("require-agent")
    options.certain = parsed.flag("certain")
    options.userns = parsed.text("userns")
    options.preserve_fds = parsed.number("preserve-fds") + _listen_fds()
    options.listen_fds = _listen_fds()
    if not 0 <= options.preserve_fds < 4096:
        raise UsageError(f"--preserve-fds: {options.preserve_fds} is not a valid number of descriptors")
    reserve(options)
    return bundle, config, options


def reserve(options: Options) -> None:
    """Records the inherited descriptors, before others are opened in the gaps between them."""
    for fd in range(3, 3 + options.preserve_fds):
        try:
            if os.get_inheritable(fd):
                options.handed.append(fd)
        except OSError:
            continue


def _listen_fds() -> int:
    """Returns the number of socket activation descriptors (sd_listen_fds(3)) meant for this process."""
    value = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    return int(value) if value.isdecimal() and len(value) < 4 else 0


def create(settings: Globals, arguments: list[str]) -> int:
    """`create`."""
    parsed = parse(arguments, _CREATE, interleaved=True)
    [name] = expect(parsed, "create", 1, 1)
    bundle, config, options = _request(parsed)
    options.cgroups = settings.cgroups
    parent.create(Store(settings.root), name, bundle, options, detached_start=True, config_path=config)
    return 0


def start(settings: Globals, arguments: list[str]) -> int:
    """`start`."""
    [name] = expect(parse(arguments, {}, interleaved=True), "start", 1, 1)
    store = Store(settings.root)
    container = store.load(name)
    lock = store.lock(name)
    try:
        status = container.status()
        if status != "created":
            raise Error(f"cannot start container {name}: it is {status}")
        parent.start_created(container)
    finally:
        os.close(lock)
    return 0


class Run:
    """The options of a `run`."""

    __slots__ = ("bundle", "config", "detach", "keep", "name", "options")

    def __init__(self, parsed: Parsed) -> None:
        [self.name] = expect(parsed, "run", 1, 1)
        self.bundle, self.config, self.options = _request(parsed)
        self.detach = parsed.flag("detach")
        self.keep = parsed.flag("keep")


def parse_run(arguments: list[str]) -> Run:
    """Parses the words after `run`."""
    return Run(parse(arguments, _RUN, interleaved=True))


def run(settings: Globals, arguments: list[str]) -> int:
    """`run`: returns the exit code of the workload, or 0 with --detach."""
    asked = parse_run(arguments)
    asked.options.cgroups = settings.cgroups
    launched = parent.create(
        Store(settings.root),
        asked.name,
        asked.bundle,
        asked.options,
        detached_start=False,
        config_path=asked.config,
        detach=asked.detach,
    )
    try:
        if not asked.detach:
            forward_signals(launched.pidfd)
        launched.start()
    except BaseException:
        launched.discard()
        raise
    if asked.detach:
        return 0
    code = wait_for(launched.pid, launched.pidfd, launched.terminal)
    if not asked.keep:
        ending.destroy(launched.container, launched.config)
    return code
