# SPDX-License-Identifier: Apache-2.0
"""The sequence of a start: record, root filesystem, network, configuration, launch, wait, removal.

The record is on disk before anything is created, so the next sweep finds leftovers of a killed start.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from ringfence.sandbox import oci, remove
from ringfence.sandbox.agent_socket import NO_AGENT, agent_listens
from ringfence.sandbox.connection import Connection
from ringfence.sandbox.errors import UsageError, translated
from ringfence.sandbox.network.plan import Plan, plan
from ringfence.sandbox.place import Place, new_name, reserve
from ringfence.sandbox.request import Request
from ringfence.sandbox.source import HOST, Source, resolve
from ringfence.sandbox.stdio import Streams
from ringfence_runtime.launch import wasm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ringfence_runtime.images import Rootfs
    from ringfence_runtime.launch.parent import Launched
    from ringfence_runtime.launch.plan import Options

    Created = Callable[[int, str], None]

__all__ = ["check_terminal", "run"]


def _parents(path: str) -> list[str]:
    """Returns the parent directories of an absolute path."""
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[:count]) for count in range(len(parts))]


def _nobody(_pid: int, _name: str) -> None:
    """Does nothing with the init."""


def run(
    request: Request,
    announce: Callable[[str], None],
    warn: Callable[[str], None],
    created: Created = _nobody,
) -> int:
    """Runs a sandbox; returns the workload's status. `announce` gets the name of a detached one.

    `created` gets the pid of the init and the name when everything is ready, before the workload executes.
    """
    from ringfence_runtime.inherited import mend_inherited
    from ringfence_runtime.seal import ensure_sealed

    mend_inherited()
    if os.geteuid() != 0:
        raise UsageError("ringfence run needs root", hint="use sudo")
    if request.tty and request.detach:
        raise UsageError(
            "--tty with --detach: no process would hold the terminal",
            hint="start it without --tty, then: ringfence exec --tty --interactive NAME /bin/sh",
        )
    check_terminal(tty=request.tty, interactive=request.interactive)
    with translated():
        ensure_sealed()
        return _Start(request, warn, created).run(announce)


def check_terminal(*, tty: bool, interactive: bool) -> None:
    """Refuses input for a terminal from something else, as docker does: its end is not the program's."""
    if tty and interactive and not os.isatty(0):
        raise UsageError(
            "--tty with --interactive: standard input is not a terminal",
            hint="without --tty the program reads standard input to its end",
        )


class _Start:
    """One start, and the resources that it has created so far."""

    def __init__(self, request: Request, warn: Callable[[str], None], created: Created) -> None:
        from ringfence_runtime.images import ImageStore

        self.request = request
        self.warn = warn
        self.created = created
        self.plan: Plan = plan(request.network, publishes=bool(request.publish or request.publish_all))
        self.network = Connection(request, self.plan)
        remove.sweep(request.roots)
        self.store = ImageStore(request.roots.images)
        self.source: Source = resolve(request, self.store)
        name = request.name or new_name(self.source.image or self.source.source)
        self.place: Place = reserve(request.roots, name, self._record())
        self.streams = Streams(interactive=request.interactive)

    def _record(self) -> dict[str, Any]:
        request, defaults = self.request, self.source.defaults
        return {
            "image": self.source.image or self.source.source,
            "command": oci.arguments(request, defaults),
            "detached": request.detach,
            "keep": request.keep,
            "stop_signal": request.stop_signal
            or (defaults.stop_signal if defaults is not None else "SIGTERM"),
            "stop_timeout": request.stop_timeout,
            "labels": dict(request.labels),
            "network": ":".join(filter(None, (self.plan.mode, self.plan.name, self.plan.variant))),
            "leased": self.plan.leased,
        }

    def run(self, announce: Callable[[str], None]) -> int:
        try:
            launched = self._launch()
        except BaseException:
            self.network.close()
            remove.dispose(self.place)
            raise
        if self.request.detach:
            self.place.release()
            announce(self.place.name)
            return 0
        try:
            return self._wait(launched)
        finally:
            if self.request.keep:
                remove.retire(self.place)
            else:
                remove.dispose(self.place)

    def _launch(self) -> Launched:
        from ringfence_runtime.images import prepare_rootfs, resolve_user
        from ringfence_runtime.launch.parent import create
        from ringfence_runtime.launch.plan import Options
        from ringfence_runtime.state import Store

        request, place = self.request, self.place
        rootfs = prepare_rootfs(
            self.store, self.source.source, place.name
        )  # the runtime seals it when furnished
        options = Options()
        unmapped = self._open(rootfs, options)
        self.network.lease(place, self.source.defaults, self.warn)
        user = request.user or (self.source.defaults.user if self.source.defaults is not None else "")
        found = oci.Found(
            name=place.name,
            rootfs=rootfs,
            defaults=self.source.defaults,
            image=self.source.image,
            user=resolve_user(options.rootfs_fd, user),
            network=self.network.namespace(),
            files=self.network.files(place, rootfs, options.rootfs_fd, self.warn),
            output=self._output(options) if request.detach else "",
            is_module=self.source.is_module,
            map_volumes=unmapped,
        )
        options.output = oci.OUTPUT if request.detach else ""
        options.policy, options.require_agent = request.fences.policy, request.fences.require_agent
        options.certain = True
        self._write(oci.make_config(request, found))
        self._streams_out()
        try:
            launched = create(
                Store(request.roots.runtime), place.name, place.directory, options,
                detached_start=False, detach=request.detach,
            )  # fmt: skip
        finally:
            self.streams.restore()
        self.created(launched.pid, place.name)
        self._start(launched)
        return launched

    def _warn_of_setuid(self) -> None:
        """Warns that a setuid program created in a host directory is setuid on the host, too."""
        request, path = self.request, self.source.source
        if not path.startswith("/") or request.read_only or request.fences.userns == "auto":
            return
        if all(os.stat(each).st_mode & stat.S_IXOTH for each in (path, *_parents(path))):
            self.warn(
                f"every user of this host can access {path}, and could run a setuid program that the sandbox"
                " writes there: put it below a directory for root only, or use --userns auto"
            )

    def _open(self, rootfs: Rootfs, options: Options) -> bool:
        """Opens the root filesystem. Returns True if the sandbox's ids differ from those of its files.

        This is the default for the host's own root: root of a user namespace can read only world-readable
        files, root of the host could read all.
        """
        from ringfence_runtime.images import open_rootfs
        from ringfence_runtime.launch.autouserns import take
        from ringfence_runtime.launch.idmap import make_userns

        self._warn_of_setuid()
        asked = self.request.fences.userns
        unmapped = self.source.source == HOST and not asked
        options.userns = "auto" if unmapped else asked
        if options.userns == "auto":
            options.userns_range = take(f"{self.request.roots.runtime}/{self.place.name}")
        if unmapped or options.userns_range is None:
            options.rootfs_fd = open_rootfs(rootfs)
            return unmapped
        userns = make_userns(*options.userns_range.maps())
        try:
            options.rootfs_fd = open_rootfs(rootfs, userns=userns)
        finally:
            os.close(userns)
        return False

    def _start(self, launched: Launched) -> None:
        from ringfence_runtime.launch.relay import forward_signals

        try:
            if not self.request.detach:
                forward_signals(launched.pidfd)
            self.network.attach(launched.pid)
            self.network.forget()
            launched.start()
        except BaseException:
            launched.discard()
            raise
        if not agent_listens():
            self.warn(NO_AGENT)

    def _output(self, options: Options) -> str:
        fd = os.open(self.place.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.close(fd)
        if (ids := options.userns_range) is not None:
            os.chown(self.place.output, ids.uid, ids.gid)
        return self.place.output

    def _write(self, config: dict[str, Any]) -> None:
        from ringfence_linux import strictjson

        if wasm.wanted(config["annotations"]):
            from ringfence_runtime.cli.engine import use_engine

            use_engine(self.request.roots.modules)
        self.place.write("config.json", strictjson.dumps(config))

    def _streams_out(self) -> None:
        if not self.request.tty and not self.request.detach:
            self.streams.lend()

    def _wait(self, launched: Launched) -> int:
        from ringfence_runtime.launch.relay import wait_for

        if not self.request.tty:
            self.streams.carry(launched.pidfd)
        return wait_for(launched.pid, launched.pidfd, launched.terminal)
