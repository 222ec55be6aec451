# SPDX-License-Identifier: Apache-2.0
"""The container's view of files: its root, its mounts, its /dev, and the step that leaves the host's tree
behind.
"""

from __future__ import annotations

import errno
import os

from ringfence_linux import syscalls
from ringfence_runtime.errors import Error
from ringfence_runtime.launch import mounts
from ringfence_runtime.launch.devices import make_devices
from ringfence_runtime.launch.paths import check_device, check_magic, ensure
from ringfence_runtime.launch.plan import Plan, early_propagation, late_propagation, open_rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ringfence_runtime.cgroup.group import Cgroup
    from ringfence_runtime.spec.mounts import Mount

__all__ = ["Rootfs"]


class Rootfs:
    """The root filesystem while it is being furnished; `fd` is its root, attached in our own mount
    namespace.
    """

    __slots__ = ("apart", "cgroup", "devpts", "fd", "null", "plan", "procfs")

    def __init__(self, plan: Plan, cgroup: Cgroup) -> None:
        self.plan = plan
        self.cgroup = cgroup
        self.apart: list[tuple[Mount, int]] = []  # mounts whose propagation is not that of the root
        self.devpts = -1
        self.procfs = -1
        self.null = -1
        self.fd = -1

    def enter(self) -> None:
        """Cut our mount namespace off from the host's and attach the root filesystem where the bundle has it.

        Hooks look for it there. Where our user may not reach that path, it is laid over / instead.
        """
        plan = self.plan
        if "mount" not in plan.config.linux.namespaces:
            raise Error("config: linux.namespaces: a mount namespace is needed")  # as its parser says
        if "mount" in plan.joins:
            # A copy of what was joined: whoever else lives there must not find his root changed by ours.
            syscalls.unshare(syscalls.CLONE_NEWNS)
        # Never `shared`: attaching on a peer of the host's / would attach on the host's, too. Where the
        # child opens
        # the sources itself they must still receive from the host, so then it is `slave`.
        cut = syscalls.MS_SLAVE if plan.deferred else syscalls.MS_PRIVATE
        syscalls.mount(None, "/", None, cut | syscalls.MS_REC, None)
        if plan.rootfs_fd < 0:
            plan.rootfs_fd = open_rootfs(plan.rootfs)
        try:
            place = os.open(plan.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            place = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.null = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)
        check_device(self.null, 1, 3, "/dev/null of the host")
        syscalls.move_mount(plan.rootfs_fd, place)
        os.close(place)
        self.fd = plan.rootfs_fd
        if kind := early_propagation(plan):
            syscalls.mount_setattr(self.fd, propagation=kind, recursive=True)

    def furnish(self) -> None:
        """All mounts in the order of the configuration, then the devices."""
        self._open_procfs()
        for index, mount in enumerate(self.plan.config.mounts):
            self._mount(index, mount)
        make_devices(self)

    def _open_procfs(self) -> None:
        """A procfs of our own that no mount of the image or of another container can lie over
        (CVE-2025-52881).
        """
        try:
            self.procfs = mounts.new_filesystem("proc", "proc", (), 0)
        except OSError:
            # In a user namespace that may not mount one, the host's serves, if it is what it says.
            self.procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        check_magic(self.procfs, syscalls.PROC_SUPER_MAGIC, "/proc")

    def _mount(self, index: int, mount: Mount) -> None:
        try:
            if mount.type == "cgroup" or (mount.type == "cgroup2" and not mount.bind):
                from ringfence_runtime.launch.cgroupmount import mount_cgroup

                return mount_cgroup(self, mount)
            if mount.copy_symlink and mounts.copy_link(self.fd, mount):
                return None
            if mount.bind:
                tree = self.plan.mount_fds.pop(index, -1)
                if tree < 0:
                    tree = mounts.open_source(mount, self.plan.bundle)
                if (kind := early_propagation(self.plan)) and not mount.own_propagation:
                    syscalls.mount_setattr(tree, propagation=kind, recursive=True)
                mounts.attributes(mount, tree)
            else:
                tree = self._filesystem(mount)
            if mount.destination.strip("/") == "":
                return self._cover_root(mount, tree)
            if mount.copy_up:
                mounts.copy_up(self.fd, mount, tree)
            mounts.attach(self.fd, mount, tree)
            if mount.own_propagation and late_propagation(self.plan):
                self.apart.append((mount, os.dup(tree)))
            if mount.type == "devpts" and mount.destination.rstrip("/") == "/dev/pts":
                self.devpts = tree
            else:
                os.close(tree)
        except OSError as error:
            raise Error(f"{mount.path}: cannot mount at {mount.destination}: {error.strerror}") from None

    def _cover_root(self, mount: Mount, tree: int) -> None:
        """A mount at / covers the root filesystem: from here on it is the root."""
        if mount.copy_up:
            raise Error(f"{mount.path}: tmpcopyup of the root filesystem itself is not possible")
        syscalls.move_mount(tree, self.fd, path="/")
        mounts.propagate(mount, tree)
        os.close(self.fd)
        self.fd = tree

    def _filesystem(self, mount: Mount) -> int:
        try:
            mode = mounts.existing_mode(self.fd, mount) if mount.type == "tmpfs" else ()
            return mounts.filesystem(mount, mode, self.plan.config.linux.mount_label)
        except Error:
            if mount.type != "sysfs" or not self._foreign_network():
                raise
            # sysfs belongs to a network namespace; one that is not ours cannot be mounted, only copied.
            tree = syscalls.open_tree(
                syscalls.AT_FDCWD, "/sys", syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
            )
            check_magic(tree, syscalls.SYSFS_MAGIC, "/sys")
            syscalls.mount_setattr(tree, attr_set=mount.attr_set, attr_clr=mount.attr_clr, recursive=True)
            return tree

    def _foreign_network(self) -> bool:
        linux = self.plan.config.linux
        return "user" in linux.namespaces and not linux.new("network")

    def write_sysctls(self) -> None:
        for name, value in self.plan.config.linux.sysctls.items():
            resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV
            try:
                fd = syscalls.openat2(self.procfs, f"sys/{name}", os.O_WRONLY, resolve=resolve)
                try:
                    check_magic(fd, syscalls.PROC_SUPER_MAGIC, name)
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except OSError as error:
                raise Error(f"config: linux.sysctl.{name.replace('/', '.')}: {error.strerror}") from None

    def seal(self) -> None:
        """Working directory, masks, read-only paths and, last, the root itself."""
        config = self.plan.config
        if config.process is not None:
            self._make_cwd(config.process.cwd)
        for path in config.linux.readonly:
            mounts.readonly(self.fd, path)
        for path in config.linux.masked:
            mounts.mask(self.fd, path, self.null, config.linux.mount_label)
        if config.root_readonly:
            syscalls.mount_setattr(self.fd, attr_set=syscalls.MOUNT_ATTR_RDONLY, path="/")

    def _make_cwd(self, cwd: str) -> None:
        try:
            os.close(ensure(self.fd, cwd, directory=True))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Error(f"config: process.cwd: {cwd} leads through a descriptor or in a circle") from None
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.ENOTDIR):
                raise

    def pivot(self) -> None:
        """Make the root filesystem / and let go of everything that was there before."""
        os.fchdir(self.fd)
        if self.plan.options.no_pivot:
            from ringfence_runtime.launch.moveroot import move_root

            move_root(self.fd, self.procfs)
        else:
            syscalls.pivot_root(".", ".")
            syscalls.umount2(".", syscalls.MNT_DETACH)
        os.chdir("/")
        if kind := late_propagation(self.plan):
            syscalls.mount(None, "/", None, kind, None)
        for mount, tree in self.apart:
            mounts.propagate(mount, tree)
            os.close(tree)
        for fd in (self.null, self.devpts):
            if fd >= 0:
                os.close(fd)
        self.null = self.devpts = -1
