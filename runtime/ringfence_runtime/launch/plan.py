# SPDX-License-Identifier: Apache-2.0
"""The plan of one launch: what parent and child must know, opened before the child exists.

The child inherits it by fork, or receives its descriptors. The parent opens the host's files that the child
needs, in the host's mount namespace and with the host's rights: the host's paths name a bind source.
"""

from __future__ import annotations

import os

from ringfence_linux import syscalls
from ringfence_runtime import log
from ringfence_runtime.errors import Error, SpecError
from ringfence_runtime.launch.mounts import open_rootfs, open_source
from ringfence_runtime.security.labels import selinux_enabled
from ringfence_runtime.spec.config import Config
from ringfence_runtime.spec.linux import NAMESPACES
from ringfence_runtime.spec.mounts import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ringfence_linux.cgroups import Hierarchies
    from ringfence_runtime.launch.autouserns import Range
    from ringfence_runtime.launch.channel import Channel
    from ringfence_runtime.launch.operations.base import Operation
    from ringfence_runtime.launch.starting import Starter
    from ringfence_runtime.security.seccomp import Filter
    from ringfence_runtime.state import Container

__all__ = ["USERNS", "Options", "Plan", "make_plan"]

# The init itself joins these. The other kinds need a process between (see `stages`).
_SIMPLE_JOINS = frozenset(("network", "ipc", "uts", "cgroup"))


#: the annotation that asks for user ids of the container's own; see `autouserns`
USERNS = "ringfence.io/userns"


class Options:
    """What the caller asks for beyond the bundle."""

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
        "plain_terminal",
        "policy",
        "preserve_fds",
        "require_agent",
        "rootfs_fd",
        "spawned",
        "starter",
        "streams",
        "terminal",
        "userns",
        "userns_range",
    )

    def __init__(self) -> None:
        self.console_socket = ""
        self.pid_file = ""
        self.pidfd_socket = ""
        self.preserve_fds = 0
        self.listen_fds = 0
        self.handed: list[int] = []  # descriptors of the caller that the workload inherits
        self.no_pivot = False
        self.keep_keyring = False
        self.policy = ""  # a file, or the name of a policy that the agent has loaded
        self.require_agent = False
        self.userns = ""  # auto, host, or what the annotation says
        self.userns_range: Range | None = None  # if the caller took one already
        self.cgroups = True  # False: the container has none
        self.certain = False  # no engine knows more about the container than its bundle
        self.rootfs_fd = -1  # the root filesystem as a detached mount, instead of root.path
        self.streams: list[int] | None = None  # the workload's standard streams, if not the runtime's own
        self.hierarchies: Hierarchies | None = None  # of cgroups, if the caller knows them
        self.foreign: set[int] = set()  # descriptors of other containers: the init closes them at once
        self.spawned: Callable[[int], None] | None = None  # called with the init's process id
        self.starter: Starter | None = None  # the launcher's; otherwise every launch has its own
        self.terminal: Channel | None = None  # receives the master of a terminal that this process shows
        self.plain_terminal = False  # its terminal writes a line's end as LF, not as CR LF
        self.output = ""  # a path in the container for standard output and error; input is empty then


class Plan:
    """What a launch needs, and the descriptors that are open for it."""

    __slots__ = (
        "bundle",
        "clone_flags",
        "config",
        "console",
        "deferred",
        "device_fds",
        "inner",
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
        self.rootfs = os.path.join(bundle, config.root_path)
        self.inner = self._find_inner()  # bind sources on earlier mounts, by the index of the mount
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
        """Closes the descriptors after the init got its copies."""
        kept = (self.mount_fds, self.device_fds, self.namespaces)
        for fd in (self.rootfs_fd, self.console, *(fd for each in kept for fd in each.values())):
            if fd >= 0:
                os.close(fd)
        self.rootfs_fd = self.console = -1
        for each in kept:
            each.clear()

    def _find_inner(self) -> dict[int, str]:
        """Returns the bind sources that earlier mounts of the container make, as paths below its root.

        On the host such a path has other contents or none: it cannot be opened there.
        """
        found = {}
        rootfs, mounts = os.path.normpath(self.rootfs), self.config.mounts
        for index, mount in enumerate(mounts):
            path = os.path.normpath(os.path.join(self.bundle, mount.source)) if mount.bind else ""
            if path.startswith(f"{rootfs}/"):
                inner = path.removeprefix(rootfs)
                covers = (os.path.normpath(f"/{one.destination}").lstrip("/") for one in mounts[:index])
                if any(f"{inner}/".startswith(f"/{one}/") for one in covers):
                    found[index] = inner
        return found

    def operations(self, container: Container, seccomp: Filter | None) -> list[Operation]:
        """The launch as an ordered list, which an interpreter executes and `--debug` prints."""
        from ringfence_runtime.launch.operations.sequence import launch_operations

        return list(launch_operations(self, container, seccomp))


def make_plan(config: Config, bundle: str, options: Options) -> Plan:
    """Checks, opens and copies what the child needs of the host."""
    plan = Plan(config, bundle, options)
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
    """Refuses what this host or this user does not allow."""
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
    for index, mount in enumerate(plan.config.mounts):
        if mount.bind and (mount.data or mount.superblock):
            unused = ", ".join((*mount.data, *mount.superblock))
            log.warn(f"config: {mount.path}.options: {unused!a} means nothing to a bind mount: left out")
        if plan.deferred and mount.idmap:
            why = "in a joined mount namespace" if "mount" in plan.joins else "by a user who is not root"
            raise SpecError(f"{mount.path}.options", f"a mount cannot be id-mapped {why}")
        if mount.idmap and index in plan.inner:
            raise SpecError(
                f"{mount.path}.options",
                f"a mount cannot be id-mapped if another mount makes its source {mount.source}",
            )


def _open_all(plan: Plan, options: Options) -> None:
    config = plan.config
    plan.rootfs_fd = options.rootfs_fd if options.rootfs_fd >= 0 else open_rootfs(plan.rootfs)
    if options.userns_range is not None and options.rootfs_fd < 0:
        _map_rootfs(plan, options.userns_range)
    propagation, _ = config.linux.propagation
    # A shared root filesystem stays a peer of the host's. Any other only receives mount events.
    kind = 0 if propagation == syscalls.MS_SHARED else syscalls.MS_SLAVE
    if kind:
        syscalls.mount_setattr(plan.rootfs_fd, propagation=kind, recursive=True)
    for index, mount in enumerate(config.mounts):
        linked = mount.copy_symlink and os.path.islink(mount.source)
        if mount.bind and not linked and index not in plan.inner:
            plan.mount_fds[index] = _open_bind(mount, plan)
    if config.linux.new("user") and config.linux.devices:
        from ringfence_runtime.launch.devices import precreate

        plan.device_fds = precreate(config)


def _map_rootfs(plan: Plan, ids: Range) -> None:
    """Maps the files of the host's root to those of the container's root."""
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

    userns = userns_for(mount, plan.config, plan.namespaces.get("user", -1))
    try:
        return open_source(mount, plan.bundle, idmap_userns=userns)
    finally:
        os.close(userns)
