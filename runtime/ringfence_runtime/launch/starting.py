# SPDX-License-Identifier: Apache-2.0
"""The process of a container's init: the small program of native/init.c where a launch is of the common
shape and `install` has compiled it, else a fork of the runtime. Both get the same namespaces, cgroup and
channel.
"""

from __future__ import annotations

import fcntl
import os
import stat
from _struct import pack, unpack

import ringfence_runtime
from ringfence_runtime import _sys
from ringfence_runtime.launch.channel import Channel, pair
from ringfence_runtime.launch.child import Init
from ringfence_runtime.launch.native import KEYRING, lay_out
from ringfence_runtime.launch.stages import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.plan import Plan
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.state import Container

__all__ = ["Start", "keep_spawner"]

_MOST_LAID_OUT = 32
_NAME = "ringfence-init"
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
#: the descriptor that native/init.c finds its channel at
_CHANNEL = 3


class _Helper:
    """native/init.c, ready to be executed from a private read-only mount (CVE-2019-5736), with an empty
    environment.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._looked = False
        self._call: _sys.Exec | None = None
        self._spawner: Channel | None = None
        self._owner = 0

    def call(self) -> _sys.Exec | None:
        """The execve of it as an init; None where it was not installed."""
        if not self._looked:
            self._looked = True
            self._open(ringfence_runtime.INIT)
        return self._call

    def _open(self, path: str) -> None:
        try:
            tree = _sys.open_tree(_sys.AT_FDCWD, path, _sys.OPEN_TREE_CLONE)
            _sys.mount_setattr(tree, attr_set=_sys.MOUNT_ATTR_RDONLY, propagation=_sys.MS_PRIVATE)
        except OSError:
            return
        # Out of the way of _CHANNEL.
        self._fd = fcntl.fcntl(tree, fcntl.F_DUPFD_CLOEXEC, 64)
        os.close(tree)
        self._call = _sys.Exec(self._fd, [_NAME], [])

    def spawn(self, flags: int, channel: int, cgroup: int) -> tuple[int, int]:
        """(pid, pidfd) of a new init, by the spawner where there is one."""
        # A worker of the launcher's has its own children, which the launcher's spawner would not make.
        if self._spawner is None or self._owner != os.getpid():
            return self._fork(flags, channel, cgroup, self._call)
        fds = [channel] if cgroup < 0 else [channel, cgroup]
        self._spawner.send_raw(pack("<Q", flags), fds)
        answer = self._spawner.sock.recv(4)
        if len(answer) != 4:
            # It has ended, which nobody but an administrator makes it do.
            self._spawner = None
            return self._fork(flags, channel, cgroup, self._call)
        pid: int = unpack("<i", answer)[0]
        if pid < 0:
            raise OSError(-pid, f"clone3: {os.strerror(-pid)}")
        return pid, _sys.pidfd_open(pid)

    def keep_spawner(self) -> None:
        """Let a process of the small program stay, to make inits from: for the launcher."""
        if self.call() is None:
            return
        ours, theirs = pair()
        _, pidfd = self._fork(0, theirs.fileno(), -1, _sys.Exec(self._fd, [_NAME, "spawner"], []))
        os.close(pidfd)
        theirs.close()
        self._spawner, self._owner = ours, os.getpid()

    @staticmethod
    def _fork(flags: int, channel: int, cgroup: int, call: _sys.Exec | None) -> tuple[int, int]:
        assert call is not None
        pid, pidfd = _sys.clone3(flags, cgroup_fd=cgroup)
        if pid == 0:
            # As little as can be: each page that is written to here is copied.
            if channel == _CHANNEL:
                os.set_inheritable(channel, True)
            else:
                os.dup2(channel, _CHANNEL)
            call()
            os._exit(127)
        return pid, pidfd


_helper = _Helper()
keep_spawner = _helper.keep_spawner
# (configuration, what else it depends on) -> what was laid out; the launcher starts many containers alike.
_laid_out: dict[tuple[object, ...], tuple[bytes, list[str], int] | None] = {}


class Start:
    """What the init is started with. `begin` starts it; `again` does so without the small program."""

    __slots__ = ("channel", "container", "listener", "message", "plan", "seccomp")

    def __init__(
        self,
        plan: Plan,
        container: Container,
        seccomp: Filter | None,
        channel: Channel,
        listener: Channel | None,
        *,
        small: bool,
    ) -> None:
        self.plan = plan
        self.container = container
        self.seccomp = seccomp
        self.channel = channel
        self.listener = listener
        self.message = self._lay_out() if small and _helper.call() is not None else None

    def begin(self, ours: Channel) -> tuple[int, int]:
        """(pid, pidfd) of the init, which is at work then."""
        return self._fork(ours) if self.message is None else self._execute(ours, *self.message)

    def _lay_out(self) -> tuple[bytes, list[str]] | None:
        plan, group = self.plan, self.container.cgroup
        kinds = tuple(stat.S_IFMT(os.fstat(fd).st_mode) for fd in plan.mount_fds.values())
        key = (
            plan.config,
            plan.rootfs,
            tuple(group.dirs),
            tuple(plan.namespaces),
            kinds,
            self.listener is not None,
            plan.options.streams is not None,
            plan.options.keep_keyring,
        )
        if key not in _laid_out:
            if len(_laid_out) >= _MOST_LAID_OUT:
                _laid_out.pop(next(iter(_laid_out)))
            found = lay_out(plan, group, self.seccomp, listening=self.listener is not None)
            if found is not None:
                message = found[0].encode()
                _laid_out[key] = message, found[0].fds, len(message) + found[0].place_of(found[1])
            else:
                _laid_out[key] = None
        laid = _laid_out[key]
        if laid is None:
            return None
        message, names, at = laid
        name = f"_ses.{self.container.id}".encode() + b"\0"
        if len(name) > KEYRING:
            return None
        return message[:at] + name + message[at + len(name) :], names

    def _descriptors(self, names: list[str], directories: list[int], trees: list[int]) -> list[int]:
        plan = self.plan
        known = {"rootfs": plan.rootfs_fd}
        known.update((f"mount {index}", fd) for index, fd in plan.mount_fds.items())
        known.update((f"join {name}", fd) for name, fd in plan.namespaces.items())
        known.update((f"cgroup {index}", fd) for index, fd in enumerate(directories))
        known.update((f"cgroup mount {index}", fd) for index, fd in enumerate(trees))
        known.update((f"stream {index}", fd) for index, fd in enumerate(plan.options.streams or ()))
        if self.listener is not None:
            known["listener"] = self.listener.fileno()
        return [known[name] for name in names]

    def _execute(self, ours: Channel, message: bytes, names: list[str]) -> tuple[int, int]:
        group = self.container.cgroup
        directories: list[int] = []
        trees: list[int] = []
        try:
            directories += [os.open(path, _DIRECTORY) for path in group.dirs.values()]
            if any(name.startswith("cgroup mount") for name in names):
                clone = _sys.OPEN_TREE_CLONE | _sys.AT_EMPTY_PATH
                trees += [_sys.open_tree(directory, "", clone) for directory in directories]
                for tree in trees:  # else what is mounted on it in the container is mounted on the host
                    _sys.mount_setattr(tree, propagation=_sys.MS_PRIVATE)
            into = directories[list(group.dirs).index("")] if group.unified else -1
            pid, pidfd = _helper.spawn(self.plan.clone_flags, self.channel.fileno(), into)
            ours.send_raw(message, self._descriptors(names, directories, trees))
            return pid, pidfd
        finally:
            for fd in (*directories, *trees):
                os.close(fd)

    def _fork(self, ours: Channel) -> tuple[int, int]:
        group, staged = self.container.cgroup, self.plan.staged
        # A stage process may have left the user namespace that may enter a cgroup; then the parent moves the
        # init.
        into = group.open_unified() if group.unified and not staged else -1
        tasks: list[int] = []
        try:
            tasks += [] if staged else group.open_tasks()
            init = Init(self.plan, self.container, self.channel, self.listener, self.seccomp, tasks)

            def child() -> None:
                ours.close()
                init.run()

            return spawn(self.plan, into, child)
        finally:
            for fd in (into, *tasks):
                if fd >= 0:
                    os.close(fd)
