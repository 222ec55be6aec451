# SPDX-License-Identifier: Apache-2.0
"""The root filesystem: attached in a mount namespace of the container's, then made /."""

from __future__ import annotations

import errno
import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch.identity import end_imports
from ringfence_runtime.launch.mounts import new_filesystem, open_rootfs
from ringfence_runtime.launch.operations.base import NotLowerableError, Operation
from ringfence_runtime.launch.operations.lowering import text
from ringfence_runtime.launch.paths import NULL, check_device, check_magic, ensure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.launch.operations.base import World
    from ringfence_runtime.launch.operations.lowering import Lowering

__all__ = [
    "AttachRoot",
    "CloseHandles",
    "CutPropagation",
    "MakeDirectory",
    "OpenProcfs",
    "PivotRoot",
    "SetRootPropagation",
    "leave_host",
]

_O_PATH = os.O_PATH | os.O_CLOEXEC
# Errors that leave the working directory as it is: an image may have it already, and entering it reports.
_NOT_MADE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ENOTDIR)


class CutPropagation(Operation):
    """Cuts the mount namespace off from that of the host.

    `copies`: the namespace was joined, and is copied first, because its other processes must keep their
    root. `propagation`: never shared, since attaching on a peer of the host's / would attach there as well.
    It is slave if the init itself opens the sources, which must still receive mounts from the host.
    """

    copies: bool
    propagation: int

    def describe(self) -> str:
        return "cut the mount namespace off from the host" + (" after copying it" if self.copies else "")

    def execute(self, world: World) -> None:
        if self.copies:
            syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, self.propagation | syscalls.MS_REC, None)

    def lower(self, target: Lowering) -> None:
        if self.copies:
            raise NotLowerableError(self.describe())
        target.program.call("mount", 0, b"/", 0, self.propagation | syscalls.MS_REC, 0)


class AttachRoot(Operation):
    """Attaches the root filesystem where the bundle has it, because hooks look for it there.

    If the user may not reach that path, the root filesystem covers / instead. Opens and checks /dev/null of
    the host, which masks files later (CVE-2025-31133). `opens`: the init itself opens the root filesystem.
    `only_once`: the descriptor is the caller's, so a second launch could not use it. `propagation`: what
    `rootfsPropagation` gives to a tree at once; 0: nothing.
    """

    path: str
    opens: bool
    only_once: bool
    propagation: int

    def describe(self) -> str:
        return f"attach the root filesystem {self.path}"

    def execute(self, world: World) -> None:
        if world.root < 0:
            world.root = open_rootfs(self.path)
        try:
            place = os.open(self.path, _O_PATH | os.O_DIRECTORY)
        except PermissionError:
            place = os.open("/", _O_PATH | os.O_DIRECTORY)
        world.null = os.open("/dev/null", _O_PATH)
        check_device(world.null, *NULL, "/dev/null of the host")
        syscalls.move_mount(world.root, place)
        os.close(place)
        if self.propagation:
            syscalls.mount_setattr(world.root, propagation=self.propagation, recursive=True)

    def lower(self, target: Lowering) -> None:
        if self.opens or self.only_once:
            raise NotLowerableError(f"{self.describe()}, which the init itself or the caller opens")
        program, place = target.program, target.program.slot()
        program.call("openat", syscalls.AT_FDCWD, text(self.path), _O_PATH | os.O_DIRECTORY, 0, into=place)
        program.call("openat", syscalls.AT_FDCWD, b"/dev/null", _O_PATH, 0, into=target.null)
        program.add("check_device", target.null, stat.S_IFCHR, os.makedev(*NULL))
        target.move(target.root, place)
        if self.propagation:
            target.set_attributes(target.root, propagation=self.propagation, recursive=True)


class OpenProcfs(Operation):
    """Opens a new procfs that no mount of the image or of another container can cover (CVE-2025-52881).

    In a user namespace that may not mount one, the host's /proc is used, after a check.
    """

    def describe(self) -> str:
        return "open a detached procfs"

    def execute(self, world: World) -> None:
        try:
            world.procfs = new_filesystem("proc", "proc", (), 0)
        except OSError:
            world.procfs = os.open("/proc", _O_PATH | os.O_DIRECTORY)
        check_magic(world.procfs, syscalls.PROC_SUPER_MAGIC, "/proc")

    def lower(self, target: Lowering) -> None:
        target.procfs = target.filesystem("proc", (("source", "proc"),))
        target.program.add("check_magic", target.procfs, syscalls.PROC_SUPER_MAGIC)


class MakeDirectory(Operation):
    """Creates the working directory, unless that is not possible: then entering it reports the error."""

    path: str

    def describe(self) -> str:
        return f"make the working directory {self.path}"

    def execute(self, world: World) -> None:
        try:
            os.close(ensure(world.root, self.path, directory=True))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Error(
                    f"config: process.cwd: {self.path} leads through a descriptor or in a circle"
                ) from None
            if error.errno not in _NOT_MADE:
                raise

    def lower(self, target: Lowering) -> None:
        target.ensure(self.path, directory=True, errors=_NOT_MADE)


def leave_host(world: World) -> None:
    """Completes the change of the root: from here on every file is one of the image's (CVE-2019-14271)."""
    os.chdir("/")
    end_imports()
    for fd in (world.null, world.devpts):
        if fd >= 0:
            os.close(fd)
    world.null = world.devpts = -1


class PivotRoot(Operation):
    """Makes the root filesystem / and detaches the host's tree."""

    def describe(self) -> str:
        return "pivot_root"

    def execute(self, world: World) -> None:
        os.fchdir(world.root)
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", syscalls.MNT_DETACH)
        leave_host(world)

    def lower(self, target: Lowering) -> None:
        call = target.program.call
        call("fchdir", target.root)
        call("pivot_root", b".", b".")
        call("umount2", b".", syscalls.MNT_DETACH)
        call("chdir", b"/")
        target.close(target.null, target.devpts)


class SetRootPropagation(Operation):
    """Sets `rootfsPropagation` after all mounts are attached: they must not reach a peer of a shared root."""

    flags: int

    def describe(self) -> str:
        return f"set the propagation of / ({self.flags:#x})"

    def execute(self, world: World) -> None:
        syscalls.mount(None, "/", None, self.flags, None)

    def lower(self, target: Lowering) -> None:
        target.program.call("mount", 0, b"/", 0, self.flags, 0)


class CloseHandles(Operation):
    """Closes the descriptors of the root filesystem and of the procfs."""

    def describe(self) -> str:
        return "close the descriptors of the root filesystem and of the procfs"

    def execute(self, world: World) -> None:
        os.close(world.procfs)
        os.close(world.root)

    def lower(self, target: Lowering) -> None:
        target.close(target.procfs, target.root)
