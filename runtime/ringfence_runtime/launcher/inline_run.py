# SPDX-License-Identifier: Apache-2.0
"""A plain foreground `run` that the launcher itself launches, so that no runtime process stays with it.

A run is plain if it executes no program on the host (hooks), does not need the caller's terminal, and all of
its processes end with its init, so that none can block the launcher. A worker executes every other command.
"""

from __future__ import annotations

import os

from ringfence_runtime import log
from ringfence_runtime.cgroup.hierarchy import detect
from ringfence_runtime.cli.errors import report
from ringfence_runtime.cli.lifecycle import Run, parse_run
from ringfence_runtime.cli.options import parse_globals
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import parent
from ringfence_runtime.launch.ending import destroy
from ringfence_runtime.launch.plan import USERNS
from ringfence_runtime.launch.starting import Starter
from ringfence_runtime.launcher.modules import Modules
from ringfence_runtime.launcher.protocol import ENDED, RUNNING, answer
from ringfence_runtime.launcher.waiting import Fd
from ringfence_runtime.spec.config import parse_config, read_file
from ringfence_runtime.state import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from ringfence_runtime.cli.options import Globals
    from ringfence_runtime.launch.plan import Options
    from ringfence_runtime.launch.waiting import Task
    from ringfence_runtime.launcher.protocol import Request
    from ringfence_runtime.spec.config import Config

__all__ = ["InlineRun", "InlineRuns"]

# Variables of a caller that the runtime reads. A caller that sets one of these gets a worker.
_VARIABLES = ("LISTEN_FDS=", "LISTEN_PID=", "RINGFENCE_ENROLL_SOCKET=", "RINGFENCE_USERNS_")
_MOST_CACHED = 32


class InlineRuns:
    """What the runs of one launcher share: parsed configurations, programs, open streams."""

    def __init__(self) -> None:
        self.starter = Starter()
        #: the standard streams of all clients, which a fork of the launcher must close
        self.streams: set[int] = set()
        self._modules = Modules()
        self._configs: dict[bytes, Config] = {}

    def load(self, path: str) -> tuple[Config, bytes]:
        """As `load_config`, but parses equal bytes once: the same bundle is often started many times."""
        data = read_file(path)
        config = self._configs.get(data)
        if config is None:
            config = parse_config(data, path)
            if len(self._configs) >= _MOST_CACHED:
                self._configs.pop(next(iter(self._configs)))
            self._configs[data] = config
        return config, data

    def accept(self, peer: _socket.socket, request: Request) -> InlineRun | None:
        """The run, if it is a plain one. None: a worker must execute the command.

        A mistake in the command line or the configuration is not reported here: the worker finds and reports
        it.
        """
        if any(variable.startswith(_VARIABLES) for variable in request.variables):
            return None
        try:
            settings, rest = parse_globals(request.arguments)
            if rest[:1] != ["run"] or not _is_default(settings):
                return None
            os.chdir(request.directory)
            try:
                run = parse_run(rest[1:])
            finally:
                os.chdir("/")
            if run.detach or _needs_worker(run.options):
                return None
            found = InlineRun(self, peer, request, settings.root, run)
            if not found.is_plain():
                return None
            prepared = self._modules.prepare(found.config, run.bundle, run.options)
        except (Error, OSError):
            return None
        if prepared is None:  # a module must be compiled first
            return None
        found.config = prepared
        return found


def _is_default(settings: Globals) -> bool:
    """Returns True if all messages can go to the client's standard error, and there are cgroups."""
    return not (settings.log or settings.help) and settings.cgroups and settings.log_level == "warning"


def _needs_worker(options: Options) -> bool:
    return bool(options.console_socket or options.pidfd_socket or options.preserve_fds or options.userns)


class InlineRun:
    """One container of a client, from the request to the exit code."""

    __slots__ = ("config", "data", "launched", "log", "peer", "request", "root", "run", "shared")

    def __init__(
        self, shared: InlineRuns, peer: _socket.socket, request: Request, root: str, run: Run
    ) -> None:
        self.shared = shared
        self.peer = peer
        self.request = request
        self.root = root
        self.run = run
        self.log = log.Log(stderr=request.fds[2])
        self.config, self.data = shared.load(run.config or f"{run.bundle}/config.json")
        self.launched: parent.Launched | None = None

    def is_plain(self) -> bool:
        """Returns True if nothing in the configuration needs a worker."""
        config = self.config
        spaces = config.linux.namespaces
        seccomp = config.linux.seccomp
        return (
            spaces.get("pid") == ""
            and spaces.get("mount") == ""
            and "user" not in spaces
            and "time" not in spaces
            and not any(config.hooks.values())
            and config.process is not None
            and not config.process.terminal
            and not config.linux.net_devices
            and USERNS not in config.annotations
            and (seccomp is None or not seccomp.text("listenerPath"))
        )

    def task(self) -> Task[None]:
        """The whole run. Its messages go to the client's standard error."""
        inner, late = self._task(), None
        while True:
            before = log.use(self.log)
            try:
                waits = next(inner) if late is None else inner.throw(late)
            except StopIteration:
                return
            finally:
                log.use(before)
            late = None
            try:
                yield waits
            except TimeoutError as error:
                late = error

    def _task(self) -> Task[None]:
        self.shared.streams.update(self.request.fds)
        code = 1
        try:
            code = yield from self._run()
        except (Error, OSError) as error:
            code = report(error)
        finally:
            self._release()
            # Sent before the process is reaped: until then no other process can get its id and its signals.
            answer(self.peer, ENDED, code)
            self.peer.close()
            if self.launched is not None:
                self.launched.reap()
            # Breaks a reference cycle, which otherwise only the collector would free.
            self.run.options.spawned = None

    def _release(self) -> None:
        self.shared.streams.difference_update(self.request.fds)
        self.request.close()

    def _run(self) -> Task[int]:
        run = self.run
        run.options.streams = self.request.fds
        run.options.foreign = self.shared.streams
        run.options.starter = self.shared.starter
        run.options.hierarchies = detect(keep=True)
        run.options.spawned = lambda pid: answer(self.peer, RUNNING, pid)
        launched = self.launched = yield from parent.creating(
            Store(self.root),
            run.name,
            run.bundle,
            run.options,
            detached_start=False,
            loaded=(self.config, self.data),
        )
        try:
            yield from launched.starting()
        except BaseException:
            launched.discard()
            raise
        self._release()
        yield Fd(launched.pidfd)
        code = launched.exit_code()
        if not run.keep:
            destroy(launched.container, self.config)
        return code
