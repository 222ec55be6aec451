# SPDX-License-Identifier: Apache-2.0
"""The plan of one launch: everything that parent and child must know, opened before there is a child.

The child gets it by fork. Descriptors of the host that the child needs are opened here, by the parent, in
the host's mount namespace and with the host's rights: a bind source is what the host calls by that name.
"""

from __future__ import annotations

import os
import stat

from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.launch.mounts import open_source
from ringfence_runtime.security.labels import selinux_enabled
from ringfence_runtime.spec.config import Config
from ringfence_runtime.spec.linux import NAMESPACES
from ringfence_runtime.spec.mounts import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ringfence_linux.cgroups import Hierarchies
    from ringfence_runtime.launch.autouserns import Range

__all__ = ["USERNS", "Options", "Plan", "make_plan"]

# Joined by the init itself, in its own process; the others need a process between (see `stages`).
_SIMPLE_JOINS = frozenset(("network", "ipc", "uts", "cgroup"))


#: the annotation that asks for user ids of the container's own; see `autouserns`
USERNS = "ringfence.io/userns"


class Options:
    """What the command line says beyond the bundle."""

    __slots__ = (
        "certain",
        "cgroups",
        "console_socket",
        "foreign",
        "handed",
        "hierarchies",
        "keep_keyring",
        "listen_fds",
        "no_pivot",
        "output",
        "pid_file",
        "pidfd_socket",
        "policy",
        "preserve_fds",
        "require_agent",
        "rootfs_fd",
        "spawned",
        "streams",
        "userns",
        "userns_range",
    )

    def __init__(self) -> None:
        self.console_socket = ""
        self.pid_file = ""
        self.pidfd_socket = ""
        self.preserve_fds = 0
        self.listen_fds = 0
        self.handed: list[int] = []  # descriptors of the caller's that the workload inherits
        self.no_pivot = False
        self.keep_keyring = False
        self.policy = ""  # a file, or the name of a policy that the agent has loaded
        self.require_agent = False
        self.userns = ""  # auto, host, or what the annotation says
        self.userns_range: Range | None = None  # one that the caller took already
        self.cgroups = True  # False: the container has none
        self.certain = False  # no engine knows more of this container than its bundle says
        self.rootfs_fd = -1  # the root filesystem as a detached mount, instead of root.path
        self.streams: list[int] | None = None  # the workload's standard descriptors, where not our own
        self.hierarchies: Hierarchies | None = None  # of cgroups, where the caller knows them
        self.foreign: set[int] = set()  # descriptors of other containers', which the init closes at once
        self.spawned: Callable[[int], None] | None = None  # told the init's process as soon as there is one
        self.output = ""  # a path in the container for standard output and error; input is empty then


class Plan:
    """See the module."""

    __slots__ = (
        "bundle",
        "clone_flags",
        "config",
        "console",
        "deferred",
        "device_fds",
        "joins",
        "mount_fds",
        "namespaces",
        "options",
        "rootfs",
        "rootfs_fd",
        "rootless",
        "staged",
        "unshare_user",
    )

    def __init__(self, config: Config, bundle: str, options: Options) -> None:
        self.config = config
        self.bundle = bundle
        self.options = options
        self.rootfs = config.root_path if config.root_path.startswith("/") else f"{bundle}/{config.root_path}"
        self.rootfs_fd = -1
        self.mount_fds: dict[int, int] = {}
        self.device_fds: dict[str, int] = {}
        self.namespaces: dict[str, int] = {}  # to join, in this order
        self.console = -1
        spaces = config.linux.namespaces
        self.joins = {name: path for name, path in spaces.items() if path}
        user = spaces.get("user") == ""
        self.staged = (
            bool(set(self.joins) - _SIMPLE_JOINS) or bool(self.joins and user) or spaces.get("time") == ""
        )
        flags = 0
        for name, path in spaces.items():
            if not path and name not in ("cgroup", "time"):
                flags |= NAMESPACES[name]
        self.unshare_user = self.staged and user
        self.clone_flags = flags & ~syscalls.CLONE_NEWUSER if self.staged else flags
        # Without rights over the host's mounts, the child opens the sources in its own namespaces.
        self.rootless = os.geteuid() != 0
        self.deferred = self.rootless or "mount" in self.joins

    def close(self) -> None:
        """Close the descriptors, once the init has its copies."""
        kept = (self.mount_fds, self.device_fds, self.namespaces)
        for fd in (self.rootfs_fd, self.console, *(fd for each in kept for fd in each.values())):
            if fd >= 0:
                os.close(fd)
        self.rootfs_fd = self.console = -1
        for each in kept:
            each.clear()

    def describe(self) -> list[str]:
        """The launch as a list of steps, for --debug."""
        linux = self.config.linux
        steps = [
            f"clone3 with new namespaces {[name for name, path in linux.namespaces.items() if not path]}"
        ]
        steps += [f"join the {name} namespace at {path}" for name, path in self.joins.items()]
        steps += [f"attach {mount.type or 'bind'} at {mount.destination}" for mount in self.config.mounts]
        steps += [f"mask {path}" for path in linux.masked] + [
            f"make {path} read-only" for path in linux.readonly
        ]
        steps += ["pivot_root", "drop capabilities", "seccomp" if linux.seccomp else "no seccomp", "execute"]
        return steps


def open_rootfs(path: str) -> int:
    """A detached copy of the root filesystem's tree, which sends no mount event to the host."""
    try:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE)
    except OSError as error:
        raise Error(f"config: root.path: cannot open {path}: {error.strerror}") from None
    if not stat.S_ISDIR(os.fstat(tree).st_mode):
        raise Error(f"config: root.path: {path} is not a directory")
    return tree


def early_propagation(plan: Plan) -> int:
    """`rootfsPropagation` where it must be given to each tree before that is attached: afterwards, to all at
    once, it would undo what a mount asks for itself.
    """
    kind, recursive = plan.config.linux.propagation
    return kind if recursive and kind in (syscalls.MS_PRIVATE, syscalls.MS_SLAVE) else 0


def late_propagation(plan: Plan) -> int:
    """The flags for the root when all is attached: what is mounted may not reach a peer of a shared root."""
    kind, recursive = plan.config.linux.propagation
    if not kind or early_propagation(plan):
        return 0
    return kind | (syscalls.MS_REC if recursive else 0)


def make_plan(config: Config, bundle: str, options: Options) -> Plan:
    """Check, open and copy all that the child needs of the host."""
    plan = Plan(config, bundle, options)
    for step in plan.describe() if log.shows("debug") else ():
        log.debug(step)
    if not os.path.isdir(plan.rootfs):
        raise Error(f"config: root.path: {plan.rootfs} is not a directory")
    _check_able(plan)
    try:
        if plan.joins:
            from ringfence_runtime.launch.namespaces import open_namespaces

            open_namespaces(config, plan.namespaces)
        if not plan.deferred:
            _open_all(plan, options)
    except BaseException:
        plan.close()
        raise
    return plan


def _check_able(plan: Plan) -> None:
    """What this runtime could do, but not here."""
    linux = plan.config.linux
    if linux.same_ids:
        log.warn(
            "config: linux.uidMappings: none are given, so every id of the container is the host's of that"
            " number; its capabilities hold in its namespaces alone"
        )
    if linux.mount_label and not selinux_enabled():
        raise SpecError(
            "linux.mountLabel", f"{linux.mount_label!r} is asked for, but this host has no SELinux"
        )
    for mount in plan.config.mounts:
        if mount.bind and (mount.data or mount.superblock):
            unused = ", ".join((*mount.data, *mount.superblock))
            log.warn(f"config: {mount.path}.options: {unused!a} means nothing to a bind mount: left out")
        if plan.deferred and mount.idmap:
            why = "in a joined mount namespace" if "mount" in plan.joins else "by a user who is not root"
            raise SpecError(f"{mount.path}.options", f"a mount cannot be id-mapped {why}")


def _open_all(plan: Plan, options: Options) -> None:
    config = plan.config
    plan.rootfs_fd = options.rootfs_fd if options.rootfs_fd >= 0 else open_rootfs(plan.rootfs)
    if options.userns_range is not None and options.rootfs_fd < 0:
        _map_rootfs(plan, options.userns_range)
    propagation, _ = config.linux.propagation
    # A root filesystem that shall share its mounts stays a peer of the host's; any other only receives.
    kind = 0 if propagation == syscalls.MS_SHARED else syscalls.MS_SLAVE
    if kind:
        syscalls.mount_setattr(plan.rootfs_fd, propagation=kind, recursive=True)
    for index, mount in enumerate(config.mounts):
        if mount.bind and not (mount.copy_symlink and os.path.islink(mount.source)):
            plan.mount_fds[index] = _open_bind(mount, plan)
    if config.linux.new("user") and config.linux.devices:
        from ringfence_runtime.launch.devices import precreate

        plan.device_fds = precreate(config)


def _map_rootfs(plan: Plan, ids: Range) -> None:
    """Show the files of the host's root as those of the container's root."""
    from ringfence_runtime.launch.idmap import make_userns

    userns = make_userns(*ids.maps())
    try:
        syscalls.mount_setattr(plan.rootfs_fd, attr_set=syscalls.MOUNT_ATTR_IDMAP, userns=userns)
    except OSError as error:
        raise Error(
            f"userns auto: the filesystem of {plan.rootfs} cannot be id-mapped: {error.strerror}",
            hint="ext4, xfs, btrfs and tmpfs can; overlayfs cannot: give it another root filesystem",
        ) from None
    finally:
        os.close(userns)


def _open_bind(mount: Mount, plan: Plan) -> int:
    if not mount.idmap:
        return open_source(mount, plan.bundle)
    from ringfence_runtime.launch.idmap import userns_for

    userns = userns_for(mount, plan.config)
    try:
        return open_source(mount, plan.bundle, idmap_userns=userns)
    finally:
        os.close(userns)
