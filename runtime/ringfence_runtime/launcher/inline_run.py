# SPDX-License-Identifier: Apache-2.0
"""A plain foreground `run`, launched by the launcher itself: no process of ours is left beside the container.

Plain is what neither runs programs on the host (hooks) nor needs the caller's terminal, and whose processes
all end with its init, so that nothing of it can keep the launcher waiting: everything else goes to a
worker.
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
from ringfence_runtime.launcher.protocol import ENDED, RUNNING, tell
from ringfence_runtime.launcher.waiting import Fd
from ringfence_runtime.spec.config import parse_config, read_file
from ringfence_runtime.state import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from ringfence_runtime.launch.waiting import Task
    from ringfence_runtime.launcher.protocol import Request
    from ringfence_runtime.spec.config import Config

__all__ = ["InlineRun", "inline_run"]

# What the runtime reads of a caller's environment; a caller that sets one of these gets a worker.
_VARIABLES = ("LISTEN_FDS=", "LISTEN_PID=", "RINGFENCE_ENROLL_SOCKET=", "RINGFENCE_USERNS_")
_MOST_CACHED = 32


class _Configs:
    """Configurations by their bytes, parsed once: the same bundle is often started many times."""

    def __init__(self) -> None:
        self._known: dict[bytes, Config] = {}

    def load(self, path: str) -> tuple[Config, bytes]:
        """As `load_config`."""
        data = read_file(path)
        config = self._known.get(data)
        if config is None:
            config = parse_config(data, path)
            if len(self._known) >= _MOST_CACHED:
                self._known.pop(next(iter(self._known)))
            self._known[data] = config
        return config, data


_configs = _Configs()
_streams: set[int] = set()


class InlineRun:
    """One container of a client's, from its request to its exit code."""

    __slots__ = ("config", "data", "launched", "log", "peer", "request", "root", "run")

    def __init__(self, peer: _socket.socket, request: Request, root: str, run: Run) -> None:
        self.peer = peer
        self.request = request
        self.root = root
        self.run = run
        self.log = log.Log(stderr=request.fds[2])
        self.config, self.data = _configs.load(run.config or f"{run.bundle}/config.json")
        self.launched: parent.Launched | None = None

    def is_plain(self) -> bool:
        """Whether the configuration asks for nothing that needs a worker."""
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

    def steps(self) -> Task[None]:
        """The whole of it, with messages going to the client's standard error."""
        inner, late = self._steps(), None
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

    def _steps(self) -> Task[None]:
        _streams.update(self.request.fds)
        code = 1
        try:
            code = yield from self._run()
        except (Error, OSError) as error:
            code = report(error)
        finally:
            self._release()
            # Told before the process is reaped: until then no other can have its number, to which signals go.
            tell(self.peer, ENDED, code)
            self.peer.close()
            if self.launched is not None:
                self.launched.reap()
            # They hold us as we hold them: without this only the collector would free all of it.
            self.run.options.spawned = None

    def _release(self) -> None:
        _streams.difference_update(self.request.fds)
        self.request.close()

    def _run(self) -> Task[int]:
        run = self.run
        run.options.streams = self.request.fds
        run.options.foreign = _streams
        run.options.hierarchies = detect(keep=True)
        run.options.spawned = lambda pid: tell(self.peer, RUNNING, pid)
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


def inline_run(peer: _socket.socket, request: Request) -> InlineRun | None:
    """The run that is asked for, where it is a plain one; None where a worker must look at it.

    A mistake in the command line or the configuration is not told here: the worker finds it again, and says
    so.
    """
    if any(variable.startswith(_VARIABLES) for variable in request.variables):
        return None
    try:
        settings, rest = parse_globals(request.arguments)
        if (
            rest[:1] != ["run"]
            or settings.log
            or not settings.cgroups
            or settings.log_level != "warning"
            or settings.help
        ):
            return None
        os.chdir(request.directory)
        try:
            run = parse_run(rest[1:])
        finally:
            os.chdir("/")
        options = run.options
        if (
            run.detach
            or options.console_socket
            or options.pidfd_socket
            or options.preserve_fds
            or options.userns
        ):
            return None
        found = InlineRun(peer, request, settings.root, run)
    except (Error, OSError):
        return None
    return found if found.is_plain() else None
