# SPDX-License-Identifier: Apache-2.0
"""Becoming the workload: environment, working directory, streams, user, capabilities."""

from __future__ import annotations

import os
from _struct import pack

from ringfence_linux import syscalls
from ringfence_linux.capabilities import names
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import channel as say
from ringfence_runtime.launch.identity import (
    change_directory,
    environment,
    latest,
    own_streams,
    set_groups,
)
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.launch.operations.lowering import text
from ringfence_runtime.launch.paths import RESOLVE
from ringfence_runtime.security import caps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering
    from ringfence_runtime.spec.process import Process, User

__all__ = [
    "EnterDirectory",
    "EnterDirectoryAsUser",
    "ForbidDump",
    "OwnStreams",
    "ReadEnvironment",
    "SetIdentity",
    "SetNoNewPrivileges",
]

_MOST_PATH = 4096


class ReadEnvironment(Operation):
    """Completes the environment: HOME comes from the image's /etc/passwd if the configuration has none.

    `listen_fds`: the number of descriptors of socket activation (sd_listen_fds(3)).
    """

    process: Process
    listen_fds: int

    def describe(self) -> str:
        return "read HOME from /etc/passwd" if self._needs_home() else "take the environment as it is"

    def _needs_home(self) -> bool:
        return not latest(self.process).get("HOME", "HOME=").partition("=")[2]

    def execute(self, world: World) -> None:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        world.env = environment(self.process, root)
        os.close(root)
        if self.listen_fds:
            # The workload is process 1 of its pid namespace, or has the number of this process.
            world.env += [f"LISTEN_FDS={self.listen_fds}", f"LISTEN_PID={os.getpid()}"]

    def lower(self, target: Lowering) -> None:
        if self.listen_fds:
            raise NotLowerableError("pass the descriptors of socket activation")
        program, variables = target.program, latest(self.process)
        if not self._needs_home():
            target.env = program.vector([os.fsencode(item) for item in variables.values()])
            return
        home = program.data(b"HOME=/".ljust(_MOST_PATH + 8, b"\0"), own=True)
        variables["HOME"] = ""
        target.env = program.vector([os.fsencode(item) if item else home for item in variables.values()])
        root, flags = program.slot(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        program.call("openat", syscalls.AT_FDCWD, b"/", flags, 0, into=root)
        program.add("home", root, RESOLVE, self.process.user.uid, program.at(home))
        target.close(root)


class EnterDirectory(Operation):
    """Enters the working directory, which must lie in the root (CVE-2024-21626).

    A directory that only the user of the workload may enter is left to `EnterDirectoryAsUser`.
    """

    path: str

    def describe(self) -> str:
        return f"enter {self.path}"

    def execute(self, world: World) -> None:
        try:
            change_directory(self.path)
        except Error:
            world.entered = False

    def lower(self, target: Lowering) -> None:
        target.program.add("directory", text(self.path))


class EnterDirectoryAsUser(Operation):
    """Enters the working directory with the rights of the workload, if that failed before."""

    path: str

    def describe(self) -> str:
        return f"enter {self.path} as the user, if that is still to be done"

    def execute(self, world: World) -> None:
        if not world.entered:
            change_directory(self.path)

    def lower(self, target: Lowering) -> None:
        """The native init falls back if the first attempt fails, so nothing is left to do."""


class OwnStreams(Operation):
    """Makes the workload's user the owner of the standard streams."""

    uid: int
    gid: int

    def describe(self) -> str:
        return f"give the standard streams to {self.uid}:{self.gid}"

    def execute(self, world: World) -> None:
        own_streams(self.uid, self.gid)

    def lower(self, target: Lowering) -> None:
        target.program.add("streams", self.uid, self.gid)


class SetIdentity(Operation):
    """Takes the bounding set, groups, ids and capability sets of the workload.

    `keeps_admin`: CAP_SYS_ADMIN stays permitted and effective until execve, which computes both again from
    the other sets (capabilities(7)): a seccomp filter without no_new_privs needs it. `has_userns`: a user
    namespace without privileges must not call setgroups.
    """

    user: User
    sets: dict[str, int]
    keeps_admin: bool
    has_userns: bool

    def describe(self) -> str:
        granted = ", ".join(names(self.sets["permitted"])) or "no capability"
        return f"become {self.user.uid}:{self.user.gid} with {granted}"

    def _masks(self, available: int) -> tuple[int, int, int, int]:
        """(effective, permitted, inheritable, ambient), of the capabilities that this process may grant."""
        permitted = self.sets["permitted"] & available
        effective = self.sets["effective"] & permitted
        # Beyond permitted, a task may only inherit capabilities of its bounding set, and without
        # CAP_SETPCAP not even those.
        inheritable = self.sets["inheritable"] & available
        kept = caps.SYS_ADMIN & available if self.keeps_admin else 0
        return effective | kept, permitted | kept, inheritable, self.sets["ambient"] & permitted & inheritable

    def _missing(self, available: int) -> tuple[str, ...]:
        """The names that cannot be granted: by the specification a warning, not an error."""
        return names((self.sets["permitted"] | self.sets["effective"]) & ~available)

    def execute(self, world: World) -> None:
        user = self.user
        caps.apply_bounding(self.sets["bounding"])
        set_groups(user.groups, has_userns=self.has_userns)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        try:
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        except OSError as error:
            why = f"cannot become {user.uid}:{user.gid}: {error.strerror}"
            raise Error(f"config: process.user: {why}") from None
        available = caps.held()
        effective, permitted, inheritable, ambient = self._masks(available)
        syscalls.capset(effective, permitted, inheritable)
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in _numbers(ambient):
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 0)
        if missing := self._missing(available):
            warning = f"capabilities that this host cannot grant are left out: {', '.join(missing)}"
            world.channel.send(say.WARNING, warning)

    def lower(self, target: Lowering) -> None:
        available = caps.held()
        if missing := self._missing(available):
            raise NotLowerableError(f"warn that {', '.join(missing)} cannot be granted")
        program, user = target.program, self.user
        program.add("drop_bounding", self.sets["bounding"])
        groups = program.data(pack(f"<{len(user.groups)}I", *user.groups) or bytes(4))
        program.call("setgroups", len(user.groups), program.at(groups))
        program.call("prctl", syscalls.PR_SET_KEEPCAPS, 1, 0, 0, 0)
        program.call("setresgid", user.gid, user.gid, user.gid)
        program.call("setresuid", user.uid, user.uid, user.uid)
        *words, ambient = self._masks(available)
        sets = pack("<6I", *(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))
        header = program.data(pack("<Ii", 0x20080522, 0))
        program.call("capset", program.at(header), program.at(program.data(sets)))
        program.call("prctl", syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        for number in _numbers(ambient):
            program.call("prctl", syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number, 0, 0)
        program.call("prctl", syscalls.PR_SET_KEEPCAPS, 0, 0, 0, 0)


def _numbers(mask: int) -> list[int]:
    return [number for number in range(64) if mask >> number & 1]


class SetNoNewPrivileges(Operation):
    """Sets no_new_privs: execve grants nothing more."""

    def describe(self) -> str:
        return "set no_new_privs"

    def execute(self, world: World) -> None:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)

    def lower(self, target: Lowering) -> None:
        target.program.call("prctl", syscalls.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


class ForbidDump(Operation):
    """Makes the process non-dumpable until execve: fs.suid_dumpable decides what a change of user leaves."""

    def describe(self) -> str:
        return "stay non-dumpable until execve"

    def execute(self, world: World) -> None:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)

    def lower(self, target: Lowering) -> None:
        target.program.call("prctl", syscalls.PR_SET_DUMPABLE, 0, 0, 0, 0)
